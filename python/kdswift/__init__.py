"""kdswift: distil large object detectors into small ones, on the CPU.

Everything is loaded at first use, so that `import kdswift` itself is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from ._version import __version__
from .errors import ArgumentError, FormatError, KDSError, ShapeError

# Public name -> "module" or "module:attribute", relative to this package.
_LAZY = {
    "ATSS": ".atss:ATSS",
    "Adam": ".optimizers:Adam",
    "AdamW": ".optimizers:AdamW",
    "Anchors": ".detector_options:Anchors",
    "Callback": ".callbacks:Callback",
    "CascadeRCNN": ".cascade_rcnn:CascadeRCNN",
    "Constant": ".schedules:Constant",
    "Cosine": ".schedules:Cosine",
    "Deconv": ".detector_options:Deconv",
    "Detections": ".detections:Detections",
    "Detector": ".detector:Detector",
    "EarlyStopping": ".callbacks:EarlyStopping",
    "Ensemble": ".distillation:Ensemble",
    "FCOS": ".fcos:FCOS",
    "FPN": ".detector_options:FPN",
    "FasterRCNN": ".faster_rcnn:FasterRCNN",
    "GFL": ".gfl:GFL",
    "History": ".history:History",
    "Linear": ".schedules:Linear",
    "MaskRCNN": ".mask_rcnn:MaskRCNN",
    "Method": ".methods:Method",
    "Metrics": ".evaluation:Metrics",
    "RetinaNet": ".retinanet:RetinaNet",
    "RFCN": ".rfcn:RFCN",
    "SGD": ".optimizers:SGD",
    "Step": ".schedules:Step",
    "Teacher": ".teacher:Teacher",
    "Tensor": ".tensors:Tensor",
    "Term": ".methods:Term",
    "abs": ".functional:abs",
    "adaptive_avg_pool2d": ".functional:adaptive_avg_pool2d",
    "analysis": ".analysis",
    "augment": ".augment",
    "avg_pool2d": ".functional:avg_pool2d",
    "backbones": ".backbones",
    "build_info": ".runtime:build_info",
    "cat": ".functional:cat",
    "clamp": ".functional:clamp",
    "conv2d": ".functional:conv2d",
    "data": ".data",
    "distill": ".distillation:distill",
    "doctor": ".checkup:doctor",
    "dropout": ".functional:dropout",
    "evaluate": ".evaluation:evaluate",
    "exp": ".functional:exp",
    "gather": ".functional:gather",
    "gelu": ".functional:gelu",
    "get_num_threads": ".runtime:get_num_threads",
    "inherit": ".inheritance:inherit",
    "interpolate": ".functional:interpolate",
    "layer_norm": ".functional:layer_norm",
    "linear": ".functional:linear",
    "load": ".modelfile:load",
    "log": ".functional:log",
    "log_softmax": ".functional:log_softmax",
    "losses": ".losses",
    "matmul": ".functional:matmul",
    "memory_stats": ".runtime:memory_stats",
    "max_pool2d": ".functional:max_pool2d",
    "maximum": ".functional:maximum",
    "mean": ".functional:mean",
    "merge_patches": ".attention:merge_patches",
    "methods": ".methods",
    "minimum": ".functional:minimum",
    "mtpd": ".mtpd",
    "no_grad": "._autograd:no_grad",
    "ops": ".ops",
    "quantization": ".quantization",
    "release_memory": ".runtime:release_memory",
    "relu": ".functional:relu",
    "seed": ".runtime:seed",
    "set_conv_plan": ".runtime:set_conv_plan",
    "set_num_threads": ".runtime:set_num_threads",
    "sigmoid": ".functional:sigmoid",
    "softmax": ".functional:softmax",
    "sqrt": ".functional:sqrt",
    "square": ".functional:square",
    "stack": ".functional:stack",
    "sum": ".functional:sum",
    "surgery": ".surgery",
    "tanh": ".functional:tanh",
    "tensor": ".tensors:tensor",
    "value_and_grad": "._autograd:value_and_grad",
    "var": ".functional:var",
    "viz": ".viz",
    "where": ".functional:where",
    "window_attention": ".attention:window_attention",
}

__all__ = ["ArgumentError", "FormatError", "KDSError", "ShapeError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    target = _LAZY.get(name)
    if target is None:
        raise AttributeError(f"module 'kdswift' has no attribute {name!r}")
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name, __name__)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
