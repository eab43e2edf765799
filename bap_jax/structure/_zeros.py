"""Which channels are zero whatever the image is: the program run on what may be other than zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np

from bap_jax.structure._channels import FIXED, WINDOWS
from bap_jax.structure._program import Operation, Program, names, of_images
from bap_jax.structure.coupling import Coupling

# f(0) = 0
_KEEPING_ZERO = names(
    """abs asin asinh atan atanh cbrt ceil convert_element_type copy copy_p erf erf_inv expm1 floor log1p name neg
    optimization_barrier real reduce_precision round sharding_constraint sign sin sinh sqrt square stop_gradient tan tanh"""
)
# zero where all operands are
_OF_ALL = names("add add_any sub max min or clamp")
_SUMS = names("reduce_sum reduce_max reduce_min reduce_or")


class Zeros:
    """For every value of a program, run on given weights, what may be other than zero: ``may[value]`` bool, in its shape."""

    def __init__(self, program: Program, leaves: Sequence[Any]):
        self.program = program
        self.of_images = of_images(program)
        self.constants = {value: np.asarray(constant) for value, constant in program.constants.items() if _is_number(constant)}
        self.may = {value: np.ones(shape, bool) for value, shape in enumerate(program.shapes)}
        self.may |= {value: constant != 0 for value, constant in self.constants.items()}
        self.may |= {leaf.value: np.asarray(array) != 0 for leaf, array in zip(program.leaves, leaves, strict=True)}
        for operation in program.operations:
            for value, may in zip(operation.outputs, self._follow(operation), strict=True):
                self.may[value] = np.broadcast_to(may, program.shapes[value])

    def _follow(self, operation: Operation) -> Sequence[Any]:
        name, may = operation.name, [self.may[value] for value in operation.inputs]
        if name in MOVES:
            return MOVES[name](operation.params, may, [self.program.shapes[value] for value in operation.outputs])
        if name in _SUMS:
            return [may[0].any(axis=tuple(operation.params["axes"]))]
        if name == "conv_general_dilated":
            return [self.convolution(operation, *may)]
        if name == "dot_general":
            return [self.dot(operation, *may)]
        if name in WINDOWS and name != "reduce_window":
            return [self.windows(operation, may[0])]
        if name == "mul":
            return [may[0] & may[1]]
        if name in _OF_ALL:
            return [reduce(np.logical_or, (self._bound(operation, place) for place in range(len(may))))]
        if name == "div" and operation.inputs[1] not in self.of_images:  # a divisor of zero would spoil every image
            return [may[0]]
        if name == "select_n":
            return [reduce(np.logical_or, may[1:])]
        if name in _KEEPING_ZERO or (name == "integer_pow" and operation.params["y"] > 0):
            return may
        return [True] * len(operation.outputs)

    def _bound(self, operation: Operation, place: int) -> np.ndarray:
        """Where an operand may make the result other than zero though the others are: of a bound, only on one side."""
        value, name = operation.inputs[place], operation.name
        if value in self.constants and name in ("max", "min", "clamp"):
            below = name == "max" or (name == "clamp" and place == 0)
            return self.constants[value] > 0 if below else self.constants[value] < 0
        return self.may[value]

    def convolution(self, operation: Operation, images: np.ndarray, kernel: np.ndarray) -> Any:
        """An output channel is zero where all is that its weights take up; places are not told apart."""
        layout, groups = operation.params["dimension_numbers"], operation.params["feature_group_count"]
        if operation.params["batch_group_count"] != 1:
            return True
        read = any_but(images, layout.lhs_spec[1]).reshape(groups, 1, -1)
        weights = np.moveaxis(kernel, layout.rhs_spec[:2], (0, 1))
        weights = weights.any(axis=tuple(range(2, kernel.ndim))).reshape(groups, -1, read.shape[-1])
        made, rank = (weights & read).any(axis=-1).ravel(), len(self.program.shapes[operation.outputs[0]])
        return made.reshape([-1 if axis == layout.out_spec[1] else 1 for axis in range(rank)])

    def dot(self, operation: Operation, left: np.ndarray, right: np.ndarray) -> Any:
        """An entry is zero where all products are that are summed in it."""
        (left_summed, right_summed), (left_batch, _) = operation.params["dimension_numbers"]
        if left_batch:
            return True
        return np.tensordot(left.astype(np.float32), right.astype(np.float32), (left_summed, right_summed)) > 0

    def windows(self, operation: Operation, may: np.ndarray) -> np.ndarray:
        """A channel's windows are zero where the whole channel is; a channel is whatever is not pooled over."""
        pooled = tuple(axis for axis, size in enumerate(operation.params["window_dimensions"]) if size > 1)
        return np.asarray(may.any(axis=pooled, keepdims=True))


_Shapes = Sequence[tuple[int, ...]]


def _broadcast(params: dict[str, Any], may: Sequence[np.ndarray], shapes: _Shapes) -> list[Any]:
    sizes = [1] * len(shapes[0])
    for axis, size in zip(params["broadcast_dimensions"], may[0].shape, strict=True):
        sizes[axis] = size
    return [may[0].reshape(sizes)]


def _pad(params: dict[str, Any], may: Sequence[np.ndarray], shapes: _Shapes) -> list[Any]:
    padding = params["padding_config"]
    if any(low < 0 or high < 0 or interior for low, high, interior in padding):
        return [True]
    return [np.pad(may[0], [(low, high) for low, high, _ in padding], constant_values=bool(may[1]))]


def _slice(params: dict[str, Any], may: Sequence[np.ndarray], shapes: _Shapes) -> list[Any]:
    strides = params["strides"] or (1,) * may[0].ndim
    return [may[0][tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]]


MOVES: MappingProxyType[str, Callable[[dict[str, Any], Sequence[np.ndarray], _Shapes], list[Any]]] = MappingProxyType(
    {
        "broadcast_in_dim": _broadcast,
        "concatenate": lambda params, may, shapes: [np.concatenate(may, params["dimension"])],
        "pad": _pad,
        "reshape": lambda params, may, shapes: [may[0].reshape(shapes[0])],
        "rev": lambda params, may, shapes: [np.flip(may[0], params["dimensions"])],
        "slice": _slice,
        "split": lambda params, may, shapes: np.split(may[0], np.cumsum(params["sizes"])[:-1], params["axis"]),
        "squeeze": lambda params, may, shapes: [may[0].reshape(shapes[0])],
        "transpose": lambda params, may, shapes: [may[0].transpose(params["permutation"])],
    }
)


def silent_groups(coupling: Coupling, zeros: Zeros) -> list[np.ndarray]:
    """The groups that have no say in the logits, whatever the image: nothing of them is read, or it is read with zero weights.

    Args:
      coupling: of the network.
      zeros: of its program, on the arrays of params and model state.

    Returns:
      For every family bool [num_groups].
    """
    heard: set[int] = set()
    for contraction in coupling.channels.contractions:
        roots = coupling.channels.roots(contraction.channels)
        if np.all(roots == FIXED):
            continue
        left, right = coupling.program.operations[contraction.operation].inputs
        read = any_but(zeros.may[left], contraction.left_axis)
        weighed = any_but(zeros.may[right], contraction.right_axis)
        heard.update(roots[read & weighed[np.arange(len(roots)) % len(weighed)]].tolist())
    return [np.array([root not in heard for root in roots.tolist()], bool) for roots in coupling.roots]


def any_but(may: np.ndarray, axis: int) -> np.ndarray:
    """For each entry of an axis, whether anything is true there."""
    return np.asarray(may.any(axis=tuple(other for other in range(may.ndim) if other != axis)))


def _is_number(constant: Any) -> bool:
    return isinstance(getattr(constant, "dtype", None), np.dtype)
