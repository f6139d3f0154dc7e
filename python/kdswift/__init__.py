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
    "Tensor": ".tensors:Tensor",
    "build_info": ".runtime:build_info",
    "get_num_threads": ".runtime:get_num_threads",
    "losses": ".losses",
    "no_grad": "._autograd:no_grad",
    "ops": ".ops",
    "seed": ".runtime:seed",
    "set_conv_plan": ".runtime:set_conv_plan",
    "set_num_threads": ".runtime:set_num_threads",
    "tensor": ".tensors:tensor",
    "value_and_grad": "._autograd:value_and_grad",
}
# Functions of tensors.
_LAZY |= {
    name: f".functional:{name}"
    for name in (
        "abs adaptive_avg_pool2d avg_pool2d cat clamp conv2d dropout exp gather interpolate "
        "layer_norm linear log log_softmax matmul max_pool2d maximum mean minimum relu sigmoid "
        "softmax sqrt square stack sum tanh var where"
    ).split()
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
