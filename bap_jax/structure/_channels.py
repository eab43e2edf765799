"""Which channels are tied: every entry of every axis of every value gets a number, and the operations join the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bap_jax.errors import SettingError
from bap_jax.structure._program import Operation, Program, names

FIXED = 0  # the number of whatever is never cut: the batch, places, the image's channels, the logits

Numbers = np.ndarray  # [size of the axis] int

ELEMENTWISE = names(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy copy_p cos cosh
    digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul
    name ne neg nextafter not optimization_barrier or pow real reduce_precision rem round rsqrt select_n sharding_constraint sign
    sin sinh sqrt square stop_gradient sub tan tanh xor"""
)
REDUCTIONS = names("argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum")
WINDOWS = names("reduce_window reduce_window_max reduce_window_min reduce_window_sum")


class Contraction(NamedTuple):
    """Where a layer reads channels: the only place at which a channel has a say in another one."""

    operation: int
    channels: Numbers
    left_axis: int  # of the first operand, as long as the channels
    right_axis: int  # of the second, where channel c is entry c modulo its length


class Channels:
    """The numbers of a program's values, joined.

    ``axes[value]`` has the numbers of each axis; ``root`` gives what they were joined to. ``owner`` says which entry of which
    leaf's axis a number was made for.
    """

    def __init__(self, program: Program):
        self.program = program
        self.parent = [FIXED]
        self.linked = [False]  # does a root stand for an entry of a leaf?
        self.owner: dict[int, tuple[int, int, int]] = {}  # number: (leaf, axis, index)
        self.axes: list[tuple[Numbers, ...]] = [() for _ in program.shapes]
        self.contractions: list[Contraction] = []
        self._start()
        for place, operation in enumerate(program.operations):
            made = self._apply(place, operation)
            for value, numbers in zip(operation.outputs, made, strict=True):
                assert tuple(map(len, numbers)) == program.shapes[value], (operation.name, program.shapes[value])
                self.axes[value] = numbers
        for row in self.axes[program.logits]:
            self.fix(row)

    def _start(self) -> None:
        program = self.program
        self.axes[program.images] = tuple(np.full(size, FIXED) for size in program.shapes[program.images])
        used = {value for operation in program.operations for value in operation.inputs} | {program.logits}
        for place, leaf in enumerate(program.leaves):
            shape = program.shapes[leaf.value]
            if leaf.value not in used:
                self.axes[leaf.value] = tuple(np.full(size, FIXED) for size in shape)
                continue
            self.axes[leaf.value] = tuple(self._new(size, linked=True) for size in shape)
            for axis, row in enumerate(self.axes[leaf.value]):
                self.owner |= {int(number): (place, axis, index) for index, number in enumerate(row)}
                if len(row) == 1:  # the only channel of a layer cannot be cut
                    self.fix(row)
        for value, constant in program.constants.items():
            array = np.asarray(constant) if np.ndim(constant) and not _is_key(constant) else None
            self.axes[value] = tuple(
                self._new(size) if array is not None and _uniform(array, axis) else np.full(size, FIXED)
                for axis, size in enumerate(program.shapes[value])
            )

    # ---- numbers

    def _new(self, size: int, linked: bool = False) -> Numbers:
        first = len(self.parent)
        self.parent.extend(range(first, first + size))
        self.linked.extend([linked] * size)
        return np.arange(first, first + size)

    def root(self, number: int) -> int:
        """What a number was joined to."""
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    def roots(self, numbers: Numbers) -> Numbers:
        """:meth:`root` of each."""
        return np.array([self.root(int(number)) for number in numbers.ravel()], int).reshape(numbers.shape)

    def join(self, first: Numbers, second: Numbers) -> None:
        """Ties two rows of numbers, entry by entry."""
        for one, other in zip(first.ravel(), second.ravel(), strict=True):
            low, high = sorted((self.root(int(one)), self.root(int(other))))
            self.parent[high] = low
            self.linked[low] |= self.linked[high]

    def fix(self, numbers: Numbers) -> None:
        """Says that these are never cut."""
        self.join(numbers, np.zeros_like(numbers))

    def live(self, numbers: Numbers) -> bool:
        """Whether any entry may yet be cut: it comes from a leaf, and is not fixed."""
        return any(root != FIXED and self.linked[root] for root in self.roots(numbers).tolist())

    def leaf_axis(self, numbers: Numbers) -> tuple[int, int] | None:
        """The leaf and the axis of it whose entries these are, in this order and without another's."""
        owners = [self.owner.get(int(number)) for number in numbers]
        first = owners[0]
        if first is None or owners != [(first[0], first[1], index) for index in range(len(owners))]:
            return None
        return first[:2]

    # ---- operations

    def _apply(self, place: int, operation: Operation) -> list[tuple[Numbers, ...]]:
        name, inputs = operation.name, [self.axes[value] for value in operation.inputs]
        if name in ELEMENTWISE:
            if len(operation.outputs) > 1:  # an optimisation barrier passes each on by itself
                return inputs
            return [self._elementwise(inputs, self.program.shapes[operation.outputs[0]])]
        if name in REDUCTIONS:
            return [self._reduced(inputs[0], operation.params["axes"])] * len(operation.outputs)
        if name in WINDOWS:
            return self._windows(operation, inputs)
        rule = _RULES.get(name)
        if rule is None:
            return self._unknown(operation, inputs)
        return rule(self, place, operation, inputs)

    def _unknown(self, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        """Nothing comes through but what is fixed anyway."""
        for numbers in (numbers for axes in inputs for numbers in axes):
            if self.live(numbers):
                raise SettingError(
                    "model",
                    operation.name,
                    f"operations that channels can be followed through; this one takes {self.where(numbers)}",
                )
            self.fix(numbers)
        return [tuple(np.full(size, FIXED) for size in self.program.shapes[value]) for value in operation.outputs]

    def where(self, numbers: Numbers) -> str:
        """The first leaf that has a live channel among these, in words."""
        wanted = {root for root in self.roots(numbers).tolist() if root != FIXED}
        for number, (leaf, axis, _) in self.owner.items():
            if self.root(number) in wanted:
                return f"the channels of axis {axis} of {self.program.leaves[leaf].path}"
        return "channels"

    def _elementwise(self, inputs: Sequence[tuple[Numbers, ...]], shape: Sequence[int]) -> tuple[Numbers, ...]:
        made = []
        for axis, size in enumerate(shape):
            numbers = [axes[axis] for axes in inputs if axes]
            same = [row for row in numbers if len(row) == size]
            for row in numbers:
                if len(row) == size:
                    self.join(same[0], row)
                else:  # one entry, read by all
                    self.fix(row)
            made.append(next((row for row in same if int(row[0]) in self.owner), same[0]))
        return tuple(made)

    def _reduced(self, axes: tuple[Numbers, ...], gone: Sequence[int]) -> tuple[Numbers, ...]:
        for axis in gone:  # a sum or a maximum over channels makes each of them count: they stay
            self.fix(axes[axis])
        return tuple(numbers for axis, numbers in enumerate(axes) if axis not in gone)

    def _windows(self, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        axes, params = inputs[0], operation.params
        shape, made = self.program.shapes[operation.outputs[0]], []
        dilations = [params.get(key) or (1,) * len(axes) for key in ("base_dilation", "window_dilation")]
        for axis, numbers in enumerate(axes):
            settings = (params["window_dimensions"][axis], params["window_strides"][axis], *(step[axis] for step in dilations))
            if settings == (1, 1, 1, 1) and tuple(params["padding"][axis]) == (0, 0):
                made.append(numbers)
            else:
                self.fix(numbers)
                made.append(np.full(shape[axis], FIXED))
        return [tuple(made)] * len(operation.outputs)

    def _broadcast(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        kept = dict(zip(operation.params["broadcast_dimensions"], inputs[0], strict=True))
        shape, made = self.program.shapes[operation.outputs[0]], []
        for axis, size in enumerate(shape):
            if axis in kept and len(kept[axis]) == size:
                made.append(kept[axis])
            else:
                if axis in kept:
                    self.fix(kept[axis])
                made.append(self._new(size))
        return [tuple(made)]

    def _transpose(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        return [tuple(inputs[0][axis] for axis in operation.params["permutation"])]

    def _squeeze(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        return [tuple(numbers for axis, numbers in enumerate(inputs[0]) if axis not in operation.params["dimensions"])]

    def _reverse(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        gone = operation.params["dimensions"]
        return [tuple(numbers[::-1] if axis in gone else numbers for axis, numbers in enumerate(inputs[0]))]

    def _concatenate(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        along, made = operation.params["dimension"], list(inputs[0])
        for axes in inputs[1:]:
            for axis, numbers in enumerate(axes):
                if axis != along:
                    self.join(made[axis], numbers)
        made[along] = np.concatenate([axes[along] for axes in inputs])
        return [tuple(made)]

    def _pad(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        shape, made = self.program.shapes[operation.outputs[0]], []
        for axis, (low, high, interior) in enumerate(operation.params["padding_config"]):
            numbers = inputs[0][axis]
            if min(low, high) < 0 or interior:
                self.fix(numbers)
                made.append(np.full(shape[axis], FIXED))
            else:
                made.append(np.concatenate([self._new(low), numbers, self._new(high)]))
        return [tuple(made)]

    def _slice(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        params = operation.params
        strides, made = params["strides"] or (1,) * len(inputs[0]), []
        for axis, numbers in enumerate(inputs[0]):
            if strides[axis] != 1:
                self.fix(numbers)
            made.append(numbers[params["start_indices"][axis] : params["limit_indices"][axis] : strides[axis]])
        return [tuple(made)]

    def _split(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        along, ends = operation.params["axis"], np.cumsum(operation.params["sizes"])[:-1]
        pieces = np.split(inputs[0][along], ends)
        return [(*inputs[0][:along], piece, *inputs[0][along + 1 :]) for piece in pieces]

    def _reshape(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        before = [len(numbers) for numbers in inputs[0]]
        shape = self.program.shapes[operation.outputs[0]]
        if operation.params.get("dimensions") is not None:
            return self._unknown(operation, inputs)
        made: list[Numbers] = [np.full(size, FIXED) for size in shape]
        for here, there in _segments(before, shape):
            merged = self._merge([inputs[0][axis] for axis in here])
            for axis, numbers in zip(there, self._part(merged, [shape[axis] for axis in there]), strict=True):
                made[axis] = numbers
        return [tuple(made)]

    def _merge(self, axes: Sequence[Numbers]) -> Numbers:
        """The numbers of several axes read as one. One of them may be channels; the others are places, and stay."""
        if len(axes) == 1:
            return axes[0]
        live = [place for place, numbers in enumerate(axes) if self.live(numbers)]
        for place, numbers in enumerate(axes):
            if [place] != live:
                self.fix(numbers)
        merged = np.zeros([len(numbers) for numbers in axes], int)
        if len(live) == 1:
            merged += axes[live[0]].reshape([-1 if place == live[0] else 1 for place in range(len(axes))])
        return merged.ravel()

    def _part(self, merged: Numbers, shape: Sequence[int]) -> list[Numbers]:
        """The numbers of one axis read as several. Channels run along the last of those they vary on, tied over the others."""
        if len(shape) == 1:
            return [merged]
        grid, varying = merged.reshape(shape), []
        roots = self.roots(grid)
        for axis in range(len(shape)):
            if np.any(roots != roots.take([0], axis)):
                varying.append(axis)
        made = [np.full(size, FIXED) for size in shape]
        if not varying:
            self.fix(merged[:1])
            return made
        rows = np.moveaxis(grid, varying[-1], 0).reshape(shape[varying[-1]], -1)
        for column in rows.T[1:]:
            self.join(rows[:, 0], column)
        made[varying[-1]] = rows[:, 0]
        return made

    def _convolution(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        params = operation.params
        layout, groups = params["dimension_numbers"], params["feature_group_count"]
        if params["batch_group_count"] != 1:
            return self._unknown(operation, inputs)
        images, kernel = inputs
        for axis in layout.lhs_spec[2:]:
            self.fix(images[axis])
        for axis in layout.rhs_spec[2:]:
            self.fix(kernel[axis])
        channels, taken, given = images[layout.lhs_spec[1]], kernel[layout.rhs_spec[1]], kernel[layout.rhs_spec[0]]
        if groups > 1 and len(taken) == 1:  # depthwise: a channel and what is made of it
            self.fix(taken)
            self.join(np.repeat(channels, len(given) // groups), given)
        else:  # the same places in every group of channels, so that the number of groups stays
            for row in channels.reshape(groups, -1):
                self.join(row, taken)
            for row in given.reshape(groups, -1)[1:]:
                self.join(given[: len(given) // groups], row)
            self.contractions.append(Contraction(place, channels, layout.lhs_spec[1], layout.rhs_spec[1]))
        made = [np.full(size, FIXED) for size in self.program.shapes[operation.outputs[0]]]
        made[layout.out_spec[0]], made[layout.out_spec[1]] = images[layout.lhs_spec[0]], given
        return [tuple(made)]

    def _dot(self, place: int, operation: Operation, inputs: Sequence[tuple[Numbers, ...]]) -> list[tuple[Numbers, ...]]:
        (left_summed, right_summed), (left_batch, right_batch) = operation.params["dimension_numbers"]
        left, right = inputs
        for one, other in zip((*left_batch, *left_summed), (*right_batch, *right_summed), strict=True):
            self.join(left[one], right[other])
        for one, other in zip(left_summed, right_summed, strict=True):
            self.contractions.append(Contraction(place, left[one], one, other))
        rest = [left[axis] for axis in range(len(left)) if axis not in (*left_batch, *left_summed)]
        rest += [right[axis] for axis in range(len(right)) if axis not in (*right_batch, *right_summed)]
        return [(*(left[axis] for axis in left_batch), *rest)]


_RULES: MappingProxyType[str, Callable[..., list[tuple[Numbers, ...]]]] = MappingProxyType(
    {
        "broadcast_in_dim": Channels._broadcast,
        "concatenate": Channels._concatenate,
        "conv_general_dilated": Channels._convolution,
        "dot_general": Channels._dot,
        "pad": Channels._pad,
        "reshape": Channels._reshape,
        "rev": Channels._reverse,
        "slice": Channels._slice,
        "split": Channels._split,
        "squeeze": Channels._squeeze,
        "transpose": Channels._transpose,
    }
)


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Which axes of a reshape become which: the shortest runs whose sizes have the same product.

    Example:
      >>> _segments((2, 4, 6), (2, 2, 2, 6)), _segments((3,), (1, 3)), _segments((2, 3, 4), (2, 12))
      ([([0], [0]), ([1], [1, 2]), ([2], [3])], [([], [0]), ([0], [1])], [([0], [0]), ([1, 2], [1])])
    """
    found: list[tuple[list[int], list[int]]] = []
    one = other = 0
    while one < len(before) or other < len(after):
        here, there, left, right = [], [], 1, 1
        if one < len(before) and before[one] == 1 and not (other < len(after) and after[other] == 1):
            here, one = [one], one + 1
        elif other < len(after) and after[other] == 1 and not (one < len(before) and before[one] == 1):
            there, other = [other], other + 1
        else:
            here, there, left, right = [one], [other], before[one], after[other]
            one, other = one + 1, other + 1
            while left != right:
                if left < right:
                    here, left, one = [*here, one], left * before[one], one + 1
                else:
                    there, right, other = [*there, other], right * after[other], other + 1
        found.append((here, there))
    return found


def _uniform(array: Any, axis: int) -> bool:
    return bool(array.size == 0 or np.array_equal(array, np.broadcast_to(array.take([0], axis), array.shape), equal_nan=False))


def _is_key(constant: Any) -> bool:
    return not isinstance(getattr(constant, "dtype", np.dtype(float)), np.dtype)
