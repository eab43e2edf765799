"""The layers of a network one by one: each kernel, with what is added to or multiplied onto its outputs alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bap_jax.mathematics.channels import Layer
from bap_jax.structure._channels import ELEMENTWISE, REDUCTIONS, WINDOWS, Channels
from bap_jax.structure._program import Operation, names

_CONTRACTIONS = frozenset({"conv_general_dilated", "dot_general"})
_PASSING = REDUCTIONS | WINDOWS | names("broadcast_in_dim pad reshape rev slice squeeze transpose")
_MOVING = names("broadcast_in_dim convert_element_type copy reshape squeeze transpose")  # values stay what they are
_USES = {"add": "shifts", "sub": "shifts", "mul": "scales"}.get


class _Origin(NamedTuple):
    """What a value was made of."""

    leaves: frozenset[int] | None  # of these alone, not of the images; None: of the images too
    kernel: int | None = None  # the one layer whose outputs it has, if there is one
    itself: bool = False  # one leaf, at most moved


_IMAGES = _Origin(None)


def find_layers(channels: Channels) -> tuple[tuple[Layer, ...], frozenset[int]]:
    """Every convolution and dense layer, in the order of the forward pass; and which leaves scale channels."""
    program = channels.program
    origins = [_Origin(frozenset())] * len(program.shapes)
    origins[program.images] = _IMAGES
    for place, leaf in enumerate(program.leaves):
        origins[leaf.value] = _Origin(frozenset({place}), itself=True)
    axes: dict[int, tuple[int, int]] = {}  # kernel: its output and its input axis
    use: dict[int, str] = {}  # leaf: added, or multiplied onto something
    behind: dict[int, set[int]] = {}  # kernel: the leaves that meet its outputs
    for operation in program.operations:
        given = [origins[value] for value in operation.inputs]
        kernel = _kernel(channels, operation, given, axes)
        if kernel is not None:
            behind.setdefault(kernel, set())
        elif operation.name in ELEMENTWISE:
            kernel = _follow(operation, given, use, behind)
        elif operation.name in _PASSING:
            kernel = given[0].kernel
        made = _Origin(_leaves(given), kernel, operation.name in _MOVING and given[0].itself)
        for value in operation.outputs:
            origins[value] = made
    layers = tuple(_layer(channels, kernel, axes[kernel], behind[kernel], use) for kernel in axes)
    return layers, frozenset(leaf for leaf, used in use.items() if used == "scales" and program.leaves[leaf].tree == "params")


def _leaves(given: Sequence[_Origin]) -> frozenset[int] | None:
    known = [origin.leaves for origin in given if origin.leaves is not None]
    return frozenset().union(*known) if len(known) == len(given) else None


def _kernel(channels: Channels, operation: Operation, given: Sequence[_Origin], axes: dict[int, tuple[int, int]]) -> int | None:
    """The leaf that is the kernel of this layer, if this is one; notes its axes."""
    if operation.name not in _CONTRACTIONS or [origin.leaves is None for origin in given].count(True) != 1:
        return None
    side = next(place for place, origin in enumerate(given) if origin.leaves is not None)
    weights, made = channels.axes[operation.inputs[side]], channels.axes[operation.outputs[0]]
    if operation.name == "conv_general_dilated":
        layout = operation.params["dimension_numbers"]
        taken, output = weights[layout.rhs_spec[1]], made[layout.out_spec[1]]
    else:
        summed = operation.params["dimension_numbers"][0][side]
        rest = [axis for axis in range(len(weights)) if axis not in summed]
        if len(summed) != 1 or len(rest) != 1:
            return None
        taken, output = weights[summed[0]], weights[rest[0]]
    inputs, outputs = channels.leaf_axis(taken), channels.leaf_axis(output)
    if inputs is None or outputs is None or inputs[0] != outputs[0]:
        return None
    axes.setdefault(outputs[0], (outputs[1], inputs[1]))
    return outputs[0]


def _follow(operation: Operation, given: Sequence[_Origin], use: dict[int, str], behind: dict[int, set[int]]) -> int | None:
    """The kernel whose outputs an elementwise operation goes on with; notes the leaves that it brings in."""
    uses = _USES(operation.name)
    for origin in given:
        if uses and origin.itself and origin.leaves:
            use.setdefault(next(iter(origin.leaves)), uses)
    kernels = {origin.kernel for origin in given if origin.leaves is None}
    (kernel,) = kernels if len(kernels) == 1 else (None,)
    if kernel is not None:
        behind[kernel].update(*(origin.leaves for origin in given if origin.leaves is not None))
    return kernel


def _layer(channels: Channels, kernel: int, axes: tuple[int, int], behind: set[int], use: dict[int, str]) -> Layer:
    leaves, shapes = channels.program.leaves, channels.program.shapes
    output, taken = (channels.axes[leaves[kernel].value][axis] for axis in axes)
    vectors: dict[str, list[str]] = {"shifts": [], "scales": []}
    for place in sorted(behind):
        leaf = leaves[place]
        if leaf.tree == "params" and shapes[leaf.value] == (len(output),) and place in use:
            vectors[use[place]].append(leaf.path)
    return Layer(
        leaves[kernel].path,
        *axes,
        tuple(vectors["shifts"]),
        tuple(vectors["scales"]),
        free_outputs=channels.live(output),
        free_inputs=channels.live(taken),
    )
