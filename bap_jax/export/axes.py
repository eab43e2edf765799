"""The axes of one tensor: ours (images NHWC, kernels HWIO and [in, out]) and PyTorch's (NCHW, OIHW and [out, in])."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np


class Arranged(NamedTuple):
    """How a tensor's axes in a file follow from ours.

    ``kind`` is ``"same"``; ``"conv"``, HWIO ↔ OIHW; ``"dense"``, [in, out] ↔ [out, in]; or ``"flattened"``, a dense layer on a
    flattened [H, W, C] map, whose inputs also change their order: we flatten rows, columns, channels, PyTorch channels, rows,
    columns. ``map_shape`` is that (H, W, C), or ().
    """

    kind: Literal["same", "conv", "dense", "flattened"] = "same"
    map_shape: tuple[int, ...] = ()


def arrange(array: np.ndarray, arranged: Arranged) -> np.ndarray:
    """A tensor of ours as it stands in a file.

    Args:
      array: in our layout.
      arranged: how the two differ.

    Returns:
      The same numbers, contiguous.

    Example:
      >>> kernel = np.arange(4.0).reshape(4, 1)  # a 1×2 map of two channels, flattened, to one output
      >>> arrange(kernel, Arranged("flattened", (1, 2, 2))).tolist()
      [[0.0, 2.0, 1.0, 3.0]]
    """
    if arranged.kind == "conv":
        array = array.transpose(3, 2, 0, 1)
    elif arranged.kind == "dense":
        array = array.T
    elif arranged.kind == "flattened":
        outputs = array.shape[1]
        array = array.reshape(*arranged.map_shape, outputs).transpose(3, 2, 0, 1).reshape(outputs, -1)
    return np.array(array, order="C")  # also where nothing moved: a file's tensors never share memory with a network


def restore(array: np.ndarray, arranged: Arranged) -> np.ndarray:
    """The inverse of :func:`arrange`.

    Example:
      >>> restore(np.array([[0.0, 2.0, 1.0, 3.0]]), Arranged("flattened", (1, 2, 2))).ravel().tolist()
      [0.0, 1.0, 2.0, 3.0]
    """
    if arranged.kind == "conv":
        array = array.transpose(2, 3, 1, 0)
    elif arranged.kind == "dense":
        array = array.T
    elif arranged.kind == "flattened":
        height, width, channels = arranged.map_shape
        array = array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(height * width * channels, -1)
    return np.array(array, order="C")


def arranged_shape(shape: tuple[int, ...], arranged: Arranged) -> tuple[int, ...]:
    """The shape in a file of a tensor that has ``shape`` here.

    Example:
      >>> arranged_shape((3, 3, 16, 32), Arranged("conv")), arranged_shape((64, 10), Arranged("dense"))
      ((32, 16, 3, 3), (10, 64))
    """
    if arranged.kind == "conv":
        height, width, inputs, outputs = shape
        return outputs, inputs, height, width
    return shape if arranged.kind == "same" else shape[::-1]
