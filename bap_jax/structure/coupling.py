"""Which channels of a network must go together: derived from its own forward pass, not from a list of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bap_jax.mathematics.channels import Family, Groups, Role, Slice
from bap_jax.structure._channels import FIXED, Channels
from bap_jax.structure._layers import find_layers
from bap_jax.structure._program import Program, abstract_images, of_images, trace
from bap_jax.types import Model, ModelState, Params


class Coupling(NamedTuple):
    """A network's channels, and the program that they were read from."""

    groups: Groups
    program: Program
    channels: Channels
    roots: tuple[np.ndarray, ...]  # of every family, [num_groups]: what the numbers of each group were joined to


def groups_of(model: Model, params: Params, model_state: ModelState, image_shape: Sequence[int]) -> Groups:
    """The channels of a network that must be pruned together, and its layers.

    The forward pass in eval mode is traced, calls are written out, and every operation says what it ties: a sum its terms'
    channels, a convolution the channels that it reads and the slices of its kernel that read them; a concatenation puts channels
    side by side, a reshape maps them by index, and so on through whatever Linen, NNX or plain functions make. A grouped
    convolution ties the same places of its groups, a depthwise one a channel and what is made of it. The logits and the images'
    channels are never cut; neither are channels that something sums or normalises over, nor a layer's only one.

    Args:
      model: the network.
      params: arrays, or only their shapes and dtypes.
      model_state: likewise.
      image_shape: of one image, e.g. (32, 32, 3).

    Returns:
      The families of coupled groups, and the layers.

    Raises:
      SettingError: an operation that channels cannot be followed through, by its name: a loop, a gather, a kernel of someone's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.types import Model, Outputs
      >>> def apply(params, model_state, images, *, train, key=None):
      ...     return Outputs(jax.nn.relu(images @ params["a"]) @ params["b"], {}), model_state
      >>> params = {"a": jnp.ones((2, 5)), "b": jnp.ones((5, 3))}
      >>> (family,) = groups_of(Model(None, apply), params, {}, (2,)).families
      >>> family.size, [(piece.path, piece.axis, piece.role) for piece in family.slices]
      (5, [('a', 1, 'makes'), ('b', 0, 'reads')])
    """
    return couple(model, params, model_state, image_shape).groups


def couple(model: Model, params: Params, model_state: ModelState, image_shape: Sequence[int]) -> Coupling:
    """:func:`groups_of` with the program beside it, for what goes on to look at values or to cut."""
    program = trace(model, params, model_state, abstract_images(image_shape))
    channels = Channels(program)
    entries = _entries(channels)
    consumed = _consumed(channels)
    members: dict[tuple[tuple[int, int, int], ...], list[int]] = {}
    for root, axes in entries.items():
        members.setdefault(tuple((*axis, len(indices)) for axis, indices in axes.items()), []).append(root)
    layers, scales = find_layers(channels)
    families = tuple(_family(channels, consumed, scales, [entries[root] for root in roots]) for roots in members.values())
    return Coupling(Groups(families, layers), program, channels, tuple(map(np.array, members.values())))


def _entries(channels: Channels) -> dict[int, dict[tuple[int, int], list[int]]]:
    """Of every group, by what it was joined to: its entries of every leaf's axis, in the order of the forward pass."""
    program = channels.program
    first_use: dict[int, int] = {}
    for place, operation in enumerate(program.operations):
        for value in operation.inputs:
            first_use.setdefault(value, place)
    entries: dict[int, dict[tuple[int, int], list[int]]] = {}
    used = [place for place, leaf in enumerate(program.leaves) if leaf.value in first_use]
    for place in sorted(used, key=lambda place: first_use[program.leaves[place].value]):
        for axis, numbers in enumerate(channels.axes[program.leaves[place].value]):
            for index, root in enumerate(channels.roots(numbers).tolist()):
                if root != FIXED:
                    entries.setdefault(root, {}).setdefault((place, axis), []).append(index)
    return entries


def _consumed(channels: Channels) -> set[tuple[int, int]]:
    """The axes of leaves that are summed over: those of kernels, not what becomes of them."""
    found, depends = set(), of_images(channels.program)
    for contraction in channels.contractions:
        inputs = channels.program.operations[contraction.operation].inputs
        for value, axis in zip(inputs, (contraction.left_axis, contraction.right_axis), strict=True):
            owner = channels.leaf_axis(channels.axes[value][axis])
            if owner is not None and value not in depends:
                found.add(owner)
    return found


def _family(
    channels: Channels,
    consumed: set[tuple[int, int]],
    scales: frozenset[int],
    groups: Sequence[Mapping[tuple[int, int], Sequence[int]]],
) -> Family:
    leaves, shapes = channels.program.leaves, channels.program.shapes

    def role(place: int, axis: int) -> Role:
        if (place, axis) in consumed:
            return "reads"
        if sum(size > 1 for size in shapes[leaves[place].value]) > 1:
            return "makes"
        return "scales" if place in scales else "follows"

    slices = tuple(
        Slice(
            leaves[place].tree,
            leaves[place].path,
            axis,
            np.array([group[place, axis] for group in groups]),
            role(place, axis),
        )
        for place, axis in groups[0]
    )
    makers = [piece for piece in slices if piece.role == "makes"]
    return Family((makers or slices)[0].path, slices)
