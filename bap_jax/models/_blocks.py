"""What the residual networks share: where their blocks stand and how wide they are, and how PyTorch pads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bap_jax.errors import SettingError
from bap_jax.models.layers import check_widths

ONE = ((1, 1), (1, 1))  # PyTorch pads a 3×3 kernel by one on both sides, also at stride 2, where "SAME" would pad one side only


class Sizes(NamedTuple):
    """Of one block; what is None the block decides itself."""

    features: int
    strides: int
    inner: int | None = None
    projects: bool | None = None


def plan(blocks: Sequence[int], widths: Sequence[int]) -> list[Sizes]:
    """Every block in turn, by the channels of its stage.

    Example:
      >>> [tuple(sizes)[:2] for sizes in plan((1, 2), (8, 16))]
      [(8, 1), (16, 2), (16, 1)]
    """
    if len(blocks) != len(widths):
        raise SettingError("widths", tuple(widths), f"{len(blocks)} numbers, one for each stage")
    return [Sizes(width, strides) for width, stage in zip(widths, _strides(blocks), strict=True) for strides in stage]


def _strides(blocks: Sequence[int]) -> list[list[int]]:
    """Of every stage's blocks: the first of every stage after the first halves the map."""
    return [[2 if stage and not block else 1 for block in range(count)] for stage, count in enumerate(blocks)]


def given(stem: str, blocks: Sequence[int], widths: Mapping[str, int]) -> tuple[int, list[Sizes]]:
    """The stem's channels, and every block in turn by the widths of its convolutions.

    Whether a shortcut has a convolution is told by its width being given: after compaction, shapes may agree by chance.
    """
    strides = [each for stage in _strides(blocks) for each in stage]
    names = [f"block{number}" for number in range(1, len(strides) + 1)]
    needed = [stem, *(f"{name}/{conv}" for name in names for conv in ("conv1", "conv2"))]
    own = check_widths(widths, [*needed, *(f"{name}/shortcut_conv" for name in names)])
    for layer in needed:
        if layer not in own:
            raise SettingError(f"widths[{layer!r}]", None, "a positive integer: the width of every convolution is needed")
    found, before = [], own[stem]
    for name, each in zip(names, strides, strict=True):
        features, shortcut = own[f"{name}/conv2"], own.get(f"{name}/shortcut_conv")
        if features != (before if shortcut is None else shortcut):
            raise SettingError(f"widths['{name}/conv2']", features, "as many channels as its shortcut has")
        found.append(Sizes(features, each, own[f"{name}/conv1"], shortcut is not None))
        before = features
    return own[stem], found
