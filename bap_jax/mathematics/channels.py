"""What a network's channels are made of: the layers one by one, and the families of channels that must go together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Tree = Literal["params", "model_state"]


# A kernel makes channels, and the next one's input axis reads them, for it is summed over; of the vectors with an entry per
# channel, one that is multiplied onto them scales, as BatchNorm's scale, and the others follow: biases and statistics.
Role = Literal["makes", "reads", "scales", "follows"]


class Slice(NamedTuple):
    """What the groups of a family have of one axis of one array."""

    tree: Tree
    path: str  # as bap_jax.mathematics.masks.leaf_paths names it
    axis: int
    indices: np.ndarray  # [num_groups, entries]: group g has these entries of the axis
    role: Role


class Family(NamedTuple):
    """Groups of coupled channels that lie on the same axes: group g of every slice goes, or none does."""

    name: str  # the first array that makes these channels
    slices: tuple[Slice, ...]

    @property
    def size(self) -> int:
        """How many groups there are."""
        return len(self.slices[0].indices)


class Layer(NamedTuple):
    """One convolution or dense layer: its kernel, and what is added to and multiplied onto its output channels alone.

    ``shifts`` are its bias and the BatchNorm biases behind it, ``scales`` the BatchNorm scales, each a vector with one entry per
    output channel. Where two layers' outputs have been summed, what follows belongs to neither.
    """

    path: str
    output_axis: int
    input_axis: int
    shifts: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    free_outputs: bool = True  # not the logits: an output channel may be pruned
    free_inputs: bool = True  # not the image: an input channel may be pruned


class Groups(NamedTuple):
    """A network's channels.

    ``families`` are the coupled groups: each group is a set of channels none of which can go without the others; a family holds
    the groups that lie on the same axes. ``layers`` are the convolutions and dense layers one by one. Both are in the order of
    the forward pass.
    """

    families: tuple[Family, ...]
    layers: tuple[Layer, ...]
