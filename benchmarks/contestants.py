"""Contestants of a benchmark, each in a process of its own: two OpenMP pools in one would fight.

`Contestant("module:Class", threads)` starts the process; it carries out the methods of such an
object.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

# Where it matters, how the detectors of the demo are trained.
OPTIMIZERS = {
    "adamw": {"name": "adamw", "lr": 1e-4, "weight_decay": 1e-2},
    "sgd": {"name": "sgd", "lr": 1e-5, "momentum": 0.9, "weight_decay": 1e-4},
}
CLIP_NORM = 10.0


def seconds(work: Callable[[], Any], minimum: float) -> float:
    """Time of one call; short ones are repeated until `minimum` seconds are over."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < minimum:
        work()
        count += 1
    return (time.perf_counter() - start) / count


class Ours:
    """kdswift."""

    def __init__(self, threads: int) -> None:
        import kdswift as kd

        self.kd = kd
        kd.set_num_threads(threads)

    def info(self) -> dict:
        return {k: v for k, v in self.kd.build_info().items() if k != "library"}

    def build(self, spec: dict, weights: str) -> dict:
        """Make the detector, leave its weights in a file for the other; configuration and FLOPs."""
        from safetensors.numpy import save_file

        from kdswift import _engine

        model = self.detector(spec)
        state = {name: value.copy() for name, value in model.state_dict().items()}
        save_file(state, weights)
        trainer = _engine.Trainer(
            model._engine,
            [],
            {"optimizer": OPTIMIZERS[spec["optimizer"]], "clip_norm": CLIP_NORM, "seed": 0},
        )
        images, targets = spec["images"], spec["targets"]

        def step() -> None:
            batch = _engine.Batch(images, targets)
            trainer.step(batch, None)
            batch.close()

        def forward() -> None:
            batch = _engine.Batch(images)
            model._engine.predict(batch, {})
            batch.close()

        self.model, self.spec = model, spec
        self.work = {"step": step, "forward": forward}
        size = (spec["size"], spec["size"])
        # A step runs the head on the sampled regions, inference on all proposals.
        sampled = self.detector(spec, post_nms_test=model.configuration["roi"]["batch"])
        forward_flops, step_flops = model.flops(size), 3 * sampled.flops(size)
        return {
            "configuration": model.configuration,
            "flops": {"forward": forward_flops * len(images), "step": step_flops * len(images)},
        }

    def detector(self, spec: dict, **rpn: int) -> Any:
        """The detector of a case, with changes to its options of proposals."""
        kd = self.kd
        return kd.FasterRCNN(
            kd.backbones.as_backbone(spec["backbone"]),
            num_classes=spec["num_classes"],
            image_size=(spec["size"], spec["size"]),
            anchors=kd.Anchors(*spec["anchors"]) if spec["anchors"] else None,
            seed=1,
            rpn={**spec["rpn"], **rpn},
            roi=spec["roi"],
        )

    def losses(self) -> dict[str, float]:
        self.model.train()
        found = self.model.losses(self.spec["images"], self.spec["targets"])
        return {name: float(value.item()) for name, value in found.items()}

    def mode(self, what: str) -> None:
        self.model.train() if what == "step" else self.model.eval()

    def time(self, variant: str, what: str, minimum: float) -> float:
        return seconds(self.work[what], minimum)

    def peak(self) -> dict[str, float]:
        """GFLOP/s that the machine gives: a large direct convolution (1x1) and a matrix product."""
        import numpy as np

        kd = self.kd
        x, w = np.ones((8, 128, 56, 56), np.float32), np.ones((256, 128, 1, 1), np.float32)
        a = kd.tensor(np.ones((1536, 1536), np.float32))
        x, w = kd.tensor(x), kd.tensor(w)
        with kd.no_grad():
            x = kd.conv2d(x, kd.tensor(np.eye(128, dtype=np.float32)[:, :, None, None]))  # blocked
            conv = min(seconds(lambda: kd.conv2d(x, w), 0.1) for _ in range(7))
            gemm = min(seconds(lambda: a @ a, 0.1) for _ in range(7))
        return {
            "direct convolution": 2 * 8 * 128 * 256 * 56 * 56 / conv / 1e9,
            "matrix product": 2 * 1536**3 / gemm / 1e9,
        }


class Torch:
    """PyTorch, eager, with plain and with channels-last memory."""

    variants = {"torch eager": False, "torch channels_last": True}

    def __init__(self, threads: int) -> None:
        import torch
        import torchvision

        self.torch, self.version = torch, torchvision.__version__
        torch.set_num_threads(threads)
        torch.manual_seed(0)

    def info(self) -> dict:
        return {"torch": self.torch.__version__, "torchvision": self.version}

    def build(self, spec: dict, configuration: dict, weights: str) -> None:
        from safetensors.torch import load_file
        from torch_models import FasterRCNN

        torch = self.torch
        state = load_file(weights)
        self.models, self.work, self.spec = {}, {}, spec
        settings = dict(OPTIMIZERS[spec["optimizer"]])
        kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.pop("name")]
        for name, last in self.variants.items():
            model = FasterRCNN(configuration, state, last)
            self.models[name] = model
            optimizer = kind(model.parameters(), fused=True, **settings)
            self.work[name] = self.works(model, optimizer)

    def works(self, model: Any, optimizer: Any) -> dict[str, Callable[[], Any]]:
        torch, spec = self.torch, self.spec

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss = sum(model.losses(spec["images"], spec["targets"]).values())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            loss.item()

        return {"step": step, "forward": lambda: model.detect(spec["images"])}

    def losses(self) -> dict[str, float]:
        model = self.models["torch eager"].train()
        with self.torch.no_grad():
            found = model.losses(self.spec["images"], self.spec["targets"])
        return {name: float(value) for name, value in found.items()}

    def mode(self, what: str) -> None:
        for model in self.models.values():
            model.train(what == "step")

    def time(self, variant: str, what: str, minimum: float) -> float:
        return seconds(self.work[variant][what], minimum)


def _serve(kind: str, threads: int, pipe: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        module, name = kind.split(":")
        worker = getattr(importlib.import_module(module), name)(threads)
        pipe.send(("done", worker.info()))
        while True:
            message = pipe.recv()
            if message is None:
                return
            name, arguments = message
            pipe.send(("done", getattr(worker, name)(*arguments)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


def has_torch() -> bool:
    """Whether there is something to compare with; says so if not."""
    found = all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))
    if not found:
        print("torch and torchvision are not installed: kdswift runs alone")
    return found


class Contestant:
    """Handle of the process. Raises RuntimeError with the traceback of what failed there."""

    def __init__(self, kind: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before the child's libraries are loaded
        self.process = context.Process(target=_serve, args=(kind, threads, other), daemon=True)
        self.process.start()
        self.info = self._answer()

    def ask(self, name: str, *arguments: Any) -> Any:
        self.pipe.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        status, value = self.pipe.recv()
        if status == "failed":
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()
