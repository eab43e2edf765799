"""The network that is left when groups of channels are cut: its arrays, and its forward pass with the smaller shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Family, Tree
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.structure._channels import FIXED, Channels
from bap_jax.structure._program import Operation, Program, bind, shapes_of, trace
from bap_jax.structure.coupling import Coupling, couple
from bap_jax.types import Apply, Array, Model, ModelState, Outputs, Params, PyTree


def slice_out(tree: PyTree, which: Tree, families: Sequence[Family], cut: Sequence[np.ndarray]) -> PyTree:
    """A tree of arrays without the entries of some groups.

    Args:
      tree: the parameters, their masks or the model state; a scalar stays a scalar.
      which: ``"params"`` (for masks, too) or ``"model_state"``.
      families: of the network.
      cut: for every family bool [num_groups], True: cut.

    Returns:
      The same structure with smaller arrays.
    """
    gone: dict[str, dict[int, list[int]]] = {}
    for family, out in zip(families, cut, strict=True):
        for piece in family.slices:
            if piece.tree == which:
                gone.setdefault(piece.path, {}).setdefault(piece.axis, []).extend(piece.indices[out].ravel().tolist())
    leaves, treedef = jax.tree.flatten(tree)
    made = []
    for path, leaf in zip(leaf_paths(tree), leaves, strict=True):
        for axis, indices in gone.get(path, {}).items():
            if np.ndim(leaf) and indices:
                leaf = jnp.asarray(np.delete(np.asarray(leaf), indices, axis))
        made.append(leaf)
    return jax.tree.unflatten(treedef, made)


def sliced_apply(model: Model, params: Params, model_state: ModelState, cut: Sequence[np.ndarray]) -> Apply:
    """The forward pass of a network from which groups were cut, for a network that cannot be built with other widths.

    It is the network's own program with smaller shapes: for inference, and for attacks. It takes what :func:`slice_out` leaves
    of parameters and model state, and, under ``jax.export``, a batch of a symbolic size. The derivatives of functions that bring
    their own (``jax.custom_jvp``, ``jax.custom_vjp``) are those of the operations inside.

    Args:
      model: the whole network.
      params: its arrays, or only their shapes and dtypes.
      model_state: likewise.
      cut: for every family of :func:`bap_jax.structure.coupling.groups_of` bool [num_groups], True: cut.

    Returns:
      ``apply(params, model_state, images, *, train, key=None)``, without taps; ``train=True`` is refused.
    """

    def apply(
        params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]:
        if train:
            raise SettingError("train", True, "False: the program of a network that was cut cannot be trained further")
        coupling = couple(model, whole_params, whole_state, images.shape[1:])
        program = _program(model, coupling, whole_params, whole_state, images)
        leaves = [*jax.tree.leaves(params), *jax.tree.leaves(model_state)]
        return Outputs(run_sliced(coupling, program, cut, leaves, images), {}), model_state

    whole_params, whole_state = shapes_of(params), shapes_of(model_state)
    return apply


def run_sliced(coupling: Coupling, program: Program, cut: Sequence[np.ndarray], leaves: Sequence[Any], images: Array) -> Array:
    """The logits of a program whose leaves have been sliced, every operation with the shapes that are left."""
    channels = _channels(coupling, program)
    gone = _gone(coupling, channels, cut)
    if program.shapes[program.images] != images.shape:
        raise SettingError(
            "images", images.shape, f"{program.shapes[program.images]}, the shape that the program was traced with"
        )
    values: dict[int, Any] = {leaf.value: value for leaf, value in zip(program.leaves, leaves, strict=True)}
    values[program.images] = images
    kept = [
        tuple(np.array([root not in gone for root in channels.roots(axis).tolist()], bool) for axis in axes)
        for axes in channels.axes
    ]
    for value, constant in program.constants.items():
        values[value] = _take(constant, kept[value])
    for operation in program.operations:
        params = _resized(operation, kept, program)
        made = bind(operation, [values[value] for value in operation.inputs], params)
        values |= dict(zip(operation.outputs, made, strict=True))
    return values[program.logits]


def _program(model: Model, coupling: Coupling, params: Params, model_state: ModelState, images: Any) -> Program:
    """The forward pass for these images. For a symbolic number of them, which a network's own code may not take, it is read off
    two programs, for two and for three: sizes in which these differ grow with the batch.
    """
    batch, *shape = images.shape
    if isinstance(batch, int):
        return trace(model, params, model_state, jax.ShapeDtypeStruct(images.shape, images.dtype))
    two = coupling.program
    three = trace(model, params, model_state, jax.ShapeDtypeStruct((3, *shape), images.dtype))
    if [operation[2:] for operation in two.operations] != [operation[2:] for operation in three.operations] or any(
        value not in three.constants or np.shape(constant) != np.shape(three.constants[value])
        for value, constant in two.constants.items()
    ):
        raise SettingError("model", "a network that does another thing for another number of images", "the same for any")
    operations = tuple(
        one._replace(params={name: _sized(value, other.params[name], batch) for name, value in one.params.items()})
        for one, other in zip(two.operations, three.operations, strict=True)
    )
    return two._replace(operations=operations, shapes=_sized(two.shapes, three.shapes, batch))


def _sized(two: Any, three: Any, batch: Any) -> Any:
    """A size, or many, for any batch, of those for two images and for three.

    Example:
      >>> _sized((2, 8, 3), (3, 12, 3), 10)
      (10, 40, 3)
    """
    if type(two) is tuple and type(three) is tuple:
        return tuple(_sized(one, other, batch) for one, other in zip(two, three, strict=True))
    if type(two) is not int or two == three:
        return two
    return two + (three - two) * (batch - 2)


def _channels(coupling: Coupling, program: Program) -> Channels:
    """The channels of a program that may have been traced for another number of images than they were."""
    return Channels(program) if isinstance(program.shapes[program.images][0], int) else coupling.channels


def _gone(coupling: Coupling, channels: Channels, cut: Sequence[np.ndarray]) -> set[int]:
    """The numbers of the groups that were cut, in a program that was traced anew."""
    values = {(leaf.tree, leaf.path): leaf.value for leaf in channels.program.leaves}
    gone: set[int] = set()
    for family, out in zip(coupling.groups.families, cut, strict=True):
        piece = family.slices[0]
        numbers = channels.axes[values[piece.tree, piece.path]][piece.axis]
        gone.update(channels.roots(numbers[piece.indices[out]].ravel()).tolist())
    assert FIXED not in gone
    return gone


def _take(constant: Any, kept: Sequence[np.ndarray]) -> Any:
    for axis, rows in enumerate(kept):
        if not rows.all():
            constant = np.asarray(constant).compress(rows, axis)
    return constant


def _resized(operation: Operation, kept: Sequence[Sequence[np.ndarray]], program: Program) -> dict[str, Any]:
    """An operation's parameters with the sizes that are left; where nothing was cut they are what they were."""
    params, name = dict(operation.params), operation.name
    shapes = [
        tuple(size if rows.all() else int(rows.sum()) for rows, size in zip(kept[value], program.shapes[value], strict=True))
        for value in operation.outputs
    ]
    given = kept[operation.inputs[0]] if operation.inputs else ()
    if name == "reshape":
        params["new_sizes"] = shapes[0]
    elif name == "broadcast_in_dim":
        params["shape"] = shapes[0]
    elif name == "split":
        params["sizes"] = tuple(shape[params["axis"]] for shape in shapes)
    elif name == "slice":
        for key in ("start_indices", "limit_indices"):
            ends = zip(given, params[key], strict=True)
            params[key] = tuple(end if rows.all() else int(rows[:end].sum()) for rows, end in ends)
    elif name == "pad":
        made = kept[operation.outputs[0]]
        params["padding_config"] = tuple(
            (low, high, interior) if rows.all() else (int(rows[:low].sum()), int(rows[len(rows) - high :].sum()), interior)
            for rows, (low, high, interior) in zip(made, params["padding_config"], strict=True)
        )
    elif name == "conv_general_dilated" and params["feature_group_count"] > 1:
        channels = given[params["dimension_numbers"].lhs_spec[1]]
        if params["feature_group_count"] == len(channels):  # depthwise
            params["feature_group_count"] = int(channels.sum())
    return params
