"""Channels that are the same whatever the image is: what they add to the layers that read them goes into the next bias.

A layer adds w·c of a constant channel c to each of its outputs, everywhere alike if it pads nothing (a dense layer, a VALID or
1×1 convolution). At a border of zeros it adds less: there such a channel stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bap_jax.structure._channels import ELEMENTWISE, FIXED, REDUCTIONS, WINDOWS, Contraction
from bap_jax.structure._program import Operation, Program, bind, names, of_images
from bap_jax.structure._zeros import MOVES, Zeros, any_but
from bap_jax.structure.coupling import Coupling

_MOVING = names("broadcast_in_dim convert_element_type copy reshape squeeze transpose")  # values stay what they are
_CLOSE = 1e-6  # of two places of a channel, relative


class _Place(NamedTuple):
    """Where a constant may go: a leaf that is added to, or subtracted from, what a contraction makes, and to nothing else."""

    leaf: int
    sign: int
    path: tuple[int, ...]  # operations from the contraction to the sum
    back: tuple[int, ...]  # operations from the leaf to the sum
    value: int  # of the leaf, as the sum takes it


class Constants:
    """The groups that are constant, on given weights, and where their constants may go.

    Args:
      coupling: of the network.
      leaves: the arrays of params and model state, in tree order.
      zeros: of the same.
    """

    def __init__(self, coupling: Coupling, leaves: Sequence[Any], zeros: Zeros):
        self.coupling, self.program, self.zeros, self.leaves = coupling, coupling.program, zeros, leaves
        self.varies = _varying(zeros)
        self.uses: dict[int, list[int]] = {self.program.logits: [-1]}
        for place, operation in enumerate(self.program.operations):
            for value in operation.inputs:
                self.uses.setdefault(value, []).append(place)
        self.values: dict[int, Any] | None = None

    def groups(self) -> list[np.ndarray]:
        """For every family bool [num_groups]: its channels are constants wherever they are heard, and each has a place to go."""
        heard, stay = set(), {FIXED}
        for contraction in self.coupling.channels.contractions:
            roots = self.coupling.channels.roots(contraction.channels)
            left, right = self.program.operations[contraction.operation].inputs
            weighed = any_but(self.zeros.may[right], contraction.right_axis)
            told = any_but(self.zeros.may[left], contraction.left_axis) & weighed[np.arange(len(roots)) % len(weighed)]
            heard.update(roots[told].tolist())
            constant = ~any_but(self.varies[left], contraction.left_axis)
            stay.update(roots[told & ~constant].tolist())
            if constant.any() and not (self._unpadded(contraction) and self._place(contraction)):
                stay.update(roots[told].tolist())
            elif (told & constant).any():
                stay.update(roots[told & ~self._alike(left, contraction.left_axis)].tolist())
        return [np.array([root in heard and root not in stay for root in roots.tolist()], bool) for roots in self.coupling.roots]

    def folded(self, gone: Sequence[np.ndarray]) -> list[Any]:
        """The leaves with the constants of these groups in them."""
        roots = {root for roots, out in zip(self.coupling.roots, gone, strict=True) for root in roots[out].tolist()}
        made = [np.asarray(leaf) for leaf in self.leaves]
        for contraction in self.coupling.channels.contractions:
            out = np.isin(self.coupling.channels.roots(contraction.channels), list(roots))
            place = self._place(contraction) if out.any() else None
            if place is None:
                continue
            operation = self.program.operations[contraction.operation]
            left, right = (self._values()[value] for value in operation.inputs)
            shape = [-1 if axis == contraction.left_axis else 1 for axis in range(left.ndim)]
            (added,) = bind(operation, [jnp.where(jnp.asarray(out).reshape(shape), left, 0), right], operation.params)
            for step in place.path:
                (added,) = bind(self.program.operations[step], [added], self.program.operations[step].params)
            leaf = made[place.leaf]
            entries = jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape)
            for step in place.back:
                (entries,) = bind(self.program.operations[step], [entries], self.program.operations[step].params)
            rows = np.broadcast_to(np.asarray(entries, int), np.shape(added)).ravel()
            constants = np.zeros(leaf.size, leaf.dtype)
            constants[rows] = np.asarray(added).ravel()  # alike wherever an entry is added
            made[place.leaf] = leaf + place.sign * constants.reshape(leaf.shape)
        return made

    def _values(self) -> dict[int, Any]:
        """Every value of the program for an image of zeros: of what does not vary, the value for any."""
        if self.values is None:
            program = self.program
            found: dict[int, Any] = dict(program.constants)
            found |= {leaf.value: jnp.asarray(array) for leaf, array in zip(program.leaves, self.leaves, strict=True)}
            found[program.images] = jnp.zeros(program.shapes[program.images], jnp.float32)
            for operation in program.operations:
                made = bind(operation, [found[value] for value in operation.inputs], operation.params)
                found |= dict(zip(operation.outputs, made, strict=True))
            self.values = found
        return self.values

    def _alike(self, value: int, axis: int) -> np.ndarray:
        """For each entry of an axis, whether it is the same number everywhere."""
        rows = np.moveaxis(np.asarray(self._values()[value], np.float32), axis, 0)
        rows = rows.reshape(len(rows), -1)
        return np.ptp(rows, axis=1) <= _CLOSE * np.abs(rows).max(axis=1)

    def _unpadded(self, contraction: Contraction) -> bool:
        """Whether a layer sees its inputs alone; and its weights do not depend on the images."""
        operation = self.program.operations[contraction.operation]
        if self.varies[operation.inputs[1]].any():
            return False
        if operation.name == "conv_general_dilated":
            params = operation.params
            return all(tuple(sides) == (0, 0) for sides in params["padding"]) and all(
                step == 1 for step in params["lhs_dilation"]
            )
        return not operation.params["dimension_numbers"][1][0]

    def _place(self, contraction: Contraction) -> _Place | None:
        """The leaf that is added next to what a layer makes."""
        value, path = self.program.operations[contraction.operation].outputs[0], []
        while len(self.uses.get(value, ())) == 1 and self.uses[value] != [-1]:
            (step,) = self.uses[value]
            operation = self.program.operations[step]
            if operation.name in _MOVING:
                value = operation.outputs[0]
                path.append(step)
                continue
            if operation.name not in ("add", "add_any", "sub") or len(operation.inputs) != 2:
                return None
            other = operation.inputs[operation.inputs[0] == value]
            leaf, back = self._leaf_of(other)
            return None if leaf is None else _Place(leaf, -1 if operation.name == "sub" else 1, tuple(path), back, other)
        return None

    def _leaf_of(self, value: int) -> tuple[int | None, tuple[int, ...]]:
        """The leaf that a value is, moved by nothing else, and used nowhere else; and the operations that move it."""
        makers = {output: place for place, operation in enumerate(self.program.operations) for output in operation.outputs}
        leaves = {leaf.value: place for place, leaf in enumerate(self.program.leaves)}
        back: list[int] = []
        while len(self.uses.get(value, ())) == 1:
            if value in leaves:
                return leaves[value], tuple(reversed(back))
            step = makers.get(value)
            if step is None or self.program.operations[step].name not in _MOVING:
                break
            back.append(step)
            value = self.program.operations[step].inputs[0]
        return None, ()


def _varying(zeros: Zeros) -> dict[int, np.ndarray]:
    """For every value bool, in its shape: which entries may depend on the images."""
    program, found = zeros.program, {value: np.zeros(shape, bool) for value, shape in enumerate(zeros.program.shapes)}
    found[program.images] = np.ones(program.shapes[program.images], bool)
    depends = of_images(program)
    for operation in program.operations:
        if depends.intersection(operation.inputs):
            for value, varies in zip(operation.outputs, _follow(program, operation, zeros, found), strict=True):
                found[value] = np.broadcast_to(varies, program.shapes[value])
    return found


def _follow(program: Program, operation: Operation, zeros: Zeros, found: dict[int, np.ndarray]) -> Sequence[Any]:
    name, varies = operation.name, [found[value] for value in operation.inputs]
    may = [zeros.may[value] for value in operation.inputs]
    if name in MOVES:
        return MOVES[name](operation.params, varies, [program.shapes[value] for value in operation.outputs])
    if name in ("conv_general_dilated", "dot_general") and not (varies[0].any() and varies[1].any()):
        pair = [one if one.any() else other for one, other in zip(varies, may, strict=True)]
        return [zeros.convolution(operation, *pair) if name == "conv_general_dilated" else zeros.dot(operation, *pair)]
    if name in REDUCTIONS:
        return [varies[0].any(axis=tuple(operation.params["axes"]))] * len(operation.outputs)
    if name in WINDOWS and name != "reduce_window":
        return [zeros.windows(operation, varies[0])]
    if name == "mul":
        return [(varies[0] & may[1]) | (varies[1] & may[0])]
    if name in ELEMENTWISE:
        return varies if len(operation.outputs) > 1 else [reduce(np.logical_or, varies)]
    return [True] * len(operation.outputs)
