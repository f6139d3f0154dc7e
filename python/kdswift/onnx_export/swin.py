"""Swin Transformers: rows of tokens, cut into shifted windows by constant row numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Graph, Map
from .layers import convolution, linear

_WINDOW = 7
_HEAD_CHANNELS = 32
# What tokens that do not see one another add to their scores; e^-100 is 0 beside anything.
_MASKED = -100.0


@dataclass(frozen=True)
class _Tokens:
    """Rows (height · width, channels) of the graph."""

    name: str
    height: int
    width: int
    channels: int

    def of(self, name: str) -> _Tokens:
        """The same places with other values."""
        return _Tokens(name, self.height, self.width, self.channels)


def swin(
    graph: Graph, image: Map, options: Mapping[str, Any], prefix: str
) -> list[tuple[str, int, Map]]:
    """(tap, stride, map) of every stage."""
    epsilon, features = options["norm_epsilon"], prefix + "features."
    x = convolution(graph, image, features + "0.0", stride=4, padding=0)
    rows = graph.node("Transpose", x.name, perm=[0, 2, 3, 1])
    rows = graph.node("Reshape", rows, [-1, x.channels])
    tokens = _Tokens(rows, x.height, x.width, x.channels)
    tokens = tokens.of(_norm(graph, rows, features + "0.2", epsilon))
    levels, stage = [], 0
    while graph.has(f"{features}{2 * stage + 1}"):
        if stage:
            tokens = _merged(graph, tokens, f"{features}{2 * stage}.", epsilon)
        block = 0
        while graph.has(f"{features}{2 * stage + 1}.{block}"):
            part = f"{features}{2 * stage + 1}.{block}."
            tokens = _block(graph, tokens, part, _WINDOW // 2 * (block % 2), epsilon)
            block += 1
        tap = f"backbone.stage{stage + 1}"
        shown = tokens.name
        if options["output_norm"]:
            shown = _norm(graph, shown, f"{prefix}norm{stage}", epsilon)
        levels.append((tap, 4 << stage, _as_map(graph, tokens.of(shown), tap)))
        stage += 1
    return levels


def _block(graph: Graph, x: _Tokens, prefix: str, shift: int, epsilon: float) -> _Tokens:
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""
    normal = x.of(_norm(graph, x.name, prefix + "norm1", epsilon))
    mixed = graph.node("Add", x.name, _attention(graph, normal, prefix + "attn.", shift))
    hidden = linear(graph, _norm(graph, mixed, prefix + "norm2", epsilon), prefix + "mlp.0")
    half = graph.node("Mul", hidden, 0.5)
    curve = graph.node("Add", graph.node("Erf", graph.node("Div", hidden, math.sqrt(2))), 1.0)
    out = linear(graph, graph.node("Mul", half, curve), prefix + "mlp.3")
    return x.of(graph.node("Add", mixed, out))


def _attention(graph: Graph, x: _Tokens, prefix: str, shift: int) -> str:
    """Attention inside windows; tokens of padding are zeros before the projection."""
    places, regions = _windows(x.height, x.width, shift)
    heads, count = x.channels // _HEAD_CHANNELS, _WINDOW * _WINDOW
    qkv = linear(graph, _gather(graph, x, places), prefix + "qkv")
    qkv = graph.node("Reshape", qkv, [-1, count, 3, heads, _HEAD_CHANNELS])
    # One transposition for all three; keys come out ready for the product.
    qkv = graph.node("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (graph.node("Gather", qkv, part, axis=0) for part in range(3))
    q = graph.node("Mul", q, _HEAD_CHANNELS**-0.5)
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
    table = graph.weight(prefix + "relative_position_bias_table")
    index = graph.weight(prefix + "relative_position_index").astype(np.int64)
    scores = graph.node("Add", scores, table[index].reshape(count, count, heads).transpose(2, 0, 1))
    unlike = regions[:, None, :, None] != regions[:, None, None, :]
    if unlike.any():
        scores = graph.node("Add", scores, np.where(unlike, np.float32(_MASKED), np.float32(0)))
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v)
    mixed = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.node("Reshape", mixed, [-1, x.channels])
    back = np.empty(x.height * x.width, np.int64)
    real = places < len(back)
    back[places[real]] = np.flatnonzero(real)
    return linear(graph, graph.node("Gather", mixed, back, axis=0), prefix + "proj")


def _windows(height: int, width: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Row of every token of every window, height · width for padding; regions (windows, tokens).

    The map is padded to whole windows and moved in a circle, but not along a side of one window.
    Tokens of unlike regions come from opposite sides.
    """
    rows, columns = -(-height // _WINDOW), -(-width // _WINDOW)
    moves = shift if rows > 1 else 0, shift if columns > 1 else 0
    y = (np.arange(rows * _WINDOW) + moves[0]) % (rows * _WINDOW)
    x = (np.arange(columns * _WINDOW) + moves[1]) % (columns * _WINDOW)
    inside = (y < height)[:, None] & (x < width)[None, :]
    places = np.where(inside, y[:, None] * width + x[None, :], height * width)
    wrapped = [np.arange(n) >= n - move for n, move in zip((len(y), len(x)), moves)]
    regions = 2 * wrapped[0][:, None] + wrapped[1][None, :]
    return _cut(places, rows, columns).reshape(-1), _cut(regions, rows, columns)


def _cut(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A map to (windows, tokens of one)."""
    cells = values.reshape(rows, _WINDOW, columns, _WINDOW).transpose(0, 2, 1, 3)
    return cells.reshape(rows * columns, _WINDOW * _WINDOW)


def _merged(graph: Graph, x: _Tokens, prefix: str, epsilon: float) -> _Tokens:
    """Four neighbours in one token, normalized and projected; zeros behind odd sides."""
    height, width = -(-x.height // 2), -(-x.width // 2)
    y, x_ = np.mgrid[:height, :width] * 2
    neighbours = [(y + dy, x_ + dx) for dy, dx in ((0, 0), (1, 0), (0, 1), (1, 1))]
    places = np.stack(
        [
            np.where((ny < x.height) & (nx < x.width), ny * x.width + nx, x.height * x.width)
            for ny, nx in neighbours
        ],
        axis=-1,
    )
    rows = graph.node("Reshape", _gather(graph, x, places.reshape(-1)), [-1, 4 * x.channels])
    rows = linear(graph, _norm(graph, rows, prefix + "norm", epsilon), prefix + "reduction")
    return _Tokens(rows, height, width, 2 * x.channels)


def _gather(graph: Graph, x: _Tokens, places: np.ndarray) -> str:
    """Rows by number; the number behind the last one is a row of zeros."""
    rows = x.name
    if (places == x.height * x.width).any():
        rows = graph.node("Concat", rows, np.zeros((1, x.channels), np.float32), axis=0)
    return graph.node("Gather", rows, places.astype(np.int64), axis=0)


def _norm(graph: Graph, rows: str, name: str, epsilon: float) -> str:
    """Layer normalization over the channels."""
    weight = graph.constant(graph.weight(name + ".weight"), name + ".weight")
    bias = graph.constant(graph.weight(name + ".bias"), name + ".bias")
    return graph.node("LayerNormalization", rows, weight, bias, axis=-1, epsilon=epsilon)


def _as_map(graph: Graph, x: _Tokens, name: str) -> Map:
    rows = graph.node("Reshape", x.name, [1, x.height, x.width, x.channels])
    y = graph.node("Transpose", rows, name=name, perm=[0, 3, 1, 2])
    return Map(y, x.channels, x.height, x.width)
