"""A PyTorch model as teacher: outputs of its submodules, caught by hooks."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, KDSError
from ..teacher import Teacher
from .preparation import Preparation


class TorchTeacher(Teacher):
    """See `kd.Teacher.from_torch`. Outside of a batch the module is as its owner left it."""

    kind = "torch"

    def __init__(
        self,
        module: Any,
        taps: Mapping[str, str] | Iterable[str],
        class_names: Sequence[str] | None,
        preparation: Preparation,
    ) -> None:
        torch = _torch()
        if not isinstance(module, torch.nn.Module):
            raise ArgumentError(
                f"Teacher.from_torch: expected a torch.nn.Module, got {type(module).__name__}"
            )
        if taps is None or isinstance(taps, str) or not taps:
            raise ArgumentError(f"Teacher.from_torch: taps is {taps!r}, expected {{name: path}}")
        paths = dict(taps) if isinstance(taps, Mapping) else {path: path for path in taps}
        super().__init__(paths, class_names)
        self._module, self._preparation = module, preparation
        self._places = {name: _Place.find(module, path) for name, path in paths.items()}
        self._digest: str | None = None

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """One forward pass in eval mode, without gradients."""
        torch = _torch()
        if self._module is None:
            raise ArgumentError(f"{self!r}: the teacher is closed")
        wanted = self.names if names is None else names
        places = {name: self._places[name] for name in wanted}
        device = next((p.device for p in self._module.parameters()), torch.device("cpu"))
        prepared = self._preparation(images)
        if isinstance(prepared, np.ndarray):
            inputs: Any = torch.from_numpy(prepared).to(device)
        else:
            inputs = [torch.from_numpy(p).to(device) for p in prepared]
        with _evaluating(self._module), torch.no_grad(), _caught(places.values()) as calls:
            self._module(inputs)
        return {name: _to_numpy(place.pick(calls), name) for name, place in places.items()}

    def description(self) -> dict[str, Any]:
        """Class, paths, preparation and a digest of all weights and buffers."""
        if self._module is not None:  # anew every time: the owner may have trained it
            self._digest = _digest(self._module)
        return {
            "kind": self.kind,
            "module": type(self._module).__qualname__,
            "taps": {name: place.path for name, place in self._places.items()},
            "weights": self._digest,
            "images": self._preparation.describe(),
        }

    def close(self) -> None:
        """Let go of the module."""
        self._module = None
        self._places = {}


class _Place:
    """Where a tap is: a submodule, which of its calls, and keys into its output."""

    def __init__(self, path: str, module: Any, call: int | None, keys: str) -> None:
        self.path, self.module, self.call, self.keys = path, module, call, keys

    @classmethod
    def find(cls, root: Any, path: str) -> _Place:
        """The longest beginning of the path that is a submodule; the rest are keys."""
        if not isinstance(path, str):
            raise ArgumentError(f"Teacher.from_torch: a path must be a string, got {path!r}")
        modules = dict(root.named_modules())
        whole, sharp, number = path.partition("#")
        number, _, after = number.partition(".")
        if sharp and not number.isdigit():
            raise ArgumentError(f"Teacher.from_torch: {path!r}: expected a number after '#'")
        call = int(number) if sharp else None
        parts = whole.split(".") if whole else []
        for end in range(len(parts), -1, -1):
            name = ".".join(parts[:end])
            keys = ".".join(parts[end:])
            if name in modules and (end > 0 or not _looks_like_child(modules, parts)):
                return cls(path, modules[name], call, after if sharp else keys)
        raise ArgumentError(
            f"Teacher.from_torch: no submodule leads to {path!r}; there are "
            f"{', '.join(n for n in list(modules)[1:12])}{' …' if len(modules) > 12 else ''}"
        )

    def pick(self, calls: Mapping[int, list[Any]]) -> Any:
        """The value of this place among the caught outputs."""
        outputs = calls.get(id(self.module), [])
        if not outputs:
            raise ArgumentError(f"teacher: {self.path!r} did not run in the forward pass")
        if self.call is None and len(outputs) > 1:
            raise ArgumentError(
                f"teacher: {self.path!r} ran {len(outputs)} times in one forward pass; say which "
                f"as '…#0' to '…#{len(outputs) - 1}'"
            )
        if (self.call or 0) >= len(outputs):
            raise ArgumentError(f"teacher: {self.path!r}: it ran {len(outputs)} times only")
        return _descend(outputs[self.call or 0], self.keys, self.path)


def _looks_like_child(modules: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Whether a path that names no submodule was meant to name one: it is no key of an output."""
    return bool(parts) and not parts[0].isdigit() and any(n == parts[0] for n in modules)


def _descend(value: Any, keys: str, path: str) -> Any:
    """Follow dotted keys into dicts, tuples and attributes; a key may itself contain dots."""
    torch = _torch()
    while keys:
        if isinstance(value, Mapping):
            texts = {str(key): key for key in value}
            found = next(
                (
                    t
                    for t in sorted(texts, key=len, reverse=True)
                    if (keys + ".").startswith(t + ".")
                ),
                None,
            )
            if found is None:
                raise _no_key(path, keys, list(texts))
            value, keys = value[texts[found]], keys[len(found) + 1 :]
            continue
        key, _, keys = keys.partition(".")
        if isinstance(value, (tuple, list)):
            if not key.isdigit() or int(key) >= len(value):
                raise _no_key(path, key, [str(i) for i in range(len(value))])
            value = value[int(key)]
        elif not isinstance(value, torch.Tensor) and hasattr(value, key):
            value = getattr(value, key)
        else:
            raise _no_key(path, key, [])
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        raise _no_key(path, "", [str(key) for key in value])
    if isinstance(value, (tuple, list)):
        raise _no_key(path, "", [str(i) for i in range(len(value))])
    raise ArgumentError(f"teacher: {path!r} is a {type(value).__name__}, expected a tensor")


def _no_key(path: str, key: str, there: list[str]) -> ArgumentError:
    if not there:
        return ArgumentError(f"teacher: {path!r}: a tensor has no part {key!r}")
    asked = f"no {key!r} in it" if key else "it holds several tensors"
    return ArgumentError(f"teacher: {path!r}: {asked}; add one of {', '.join(there[:12])}")


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Eval mode; every training flag is put back."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, training in flags:
            one.training = training


@contextlib.contextmanager
def _caught(places: Iterable[_Place]) -> Iterator[dict[int, list[Any]]]:
    """Hooks on the submodules; their outputs in the order of calls."""
    calls: dict[int, list[Any]] = {}
    handles = []
    try:
        for module in {id(p.module): p.module for p in places}.values():
            calls[id(module)] = []

            def keep(one: Any, _inputs: Any, output: Any) -> None:
                calls[id(one)].append(_copy(output))

            handles.append(module.register_forward_hook(keep))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _to_numpy(value: Any, name: str) -> np.ndarray:
    torch = _torch()
    if value.is_complex():
        raise ArgumentError(f"teacher: tap {name!r} is complex")
    return value.detach().to("cpu", torch.float32).contiguous().numpy()


def _copy(output: Any) -> Any:
    """The output as it is now: layers that work in place write over it."""
    if isinstance(output, _torch().Tensor):
        return output.clone()
    if isinstance(output, Mapping):
        return {key: _copy(value) for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return [_copy(value) for value in output]
    return output


def _digest(module: Any) -> str:
    result = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        if not hasattr(value, "detach"):
            continue
        array = value.detach().cpu().contiguous()
        result.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        result.update(array.flatten().view(_torch().uint8).numpy().tobytes())
    return result.hexdigest()


def takes_lists(module: Any) -> bool:
    """Whether it is one of torchvision's detectors: they take a list of pictures of any size."""
    transform = getattr(module, "transform", None)
    return type(transform).__name__ == "GeneralizedRCNNTransform"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise KDSError("Teacher.from_torch needs PyTorch: pip install torch") from None
    return torch
