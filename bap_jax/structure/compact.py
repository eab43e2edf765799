"""A pruned network as a smaller dense one with the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import apply_masks, fitted_masks, leaf_paths
from bap_jax.structure._constants import Constants
from bap_jax.structure._zeros import Zeros, silent_groups
from bap_jax.structure.coupling import Coupling, couple
from bap_jax.structure.sliced import slice_out
from bap_jax.types import Model, Network

_KERNEL = "/kernel"  # how Linen and NNX name what makes a layer's outputs


class Before(NamedTuple):
    """How many groups a family had and has."""

    name: str
    before: int
    after: int


class Report(NamedTuple):
    """What compaction came to. ``cut`` is what was cut, for :func:`bap_jax.structure.sliced.sliced_apply`."""

    families: tuple[Before, ...]
    parameters_before: int
    parameters_after: int
    nonzero_before: int  # parameters that are not zero, of the pruned network
    nonzero_after: int  # the rest of ``parameters_after`` are zeros that no structure could save
    cut: tuple[np.ndarray, ...]  # for every family bool [num_groups]
    folded: int = 0  # groups that were constant, not zero, and whose constants the next biases hold now

    @property
    def compression(self) -> float:
        """Parameters before over parameters after: the real compression, beside the nominal one of the masks."""
        return self.parameters_before / self.parameters_after


def compact(
    model: Model, network: Network, image_shape: Sequence[int], *, coupling: Coupling | None = None
) -> tuple[Network, Mapping[str, int] | None, Report]:
    """Cuts the channels that have no say in the logits, whatever the image.

    A group of coupled channels has no say if, wherever a layer reads it, it is zero whatever the image, or read with zero weights
    alone. That is followed operation by operation from the pruned weights (zero filter, bias, BatchNorm scale and bias; ReLU
    keeps a zero, a sigmoid does not). A channel that is constant but not zero is cut, too, where every layer that reads it pads
    nothing and is followed by a bias, or by BatchNorm's running mean: that takes up what the channel added. A layer that has lost
    all its channels keeps the first.

    Args:
      model: the whole network.
      network: its parameters, masks and model state.
      image_shape: of one image.
      coupling: of the network, if it is known already.

    Returns:
      The smaller network; the width of every layer by its path, as our networks take it
      (``build(name, widths=...)``), or None where the parameters have other names than Linen's and NNX's; and the report.

    Raises:
      SettingError: weights that are not finite, masks that do not fit, or see :func:`bap_jax.structure.coupling.groups_of`.

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.types import Model, Network, Outputs
      >>> def apply(params, model_state, images, *, train, key=None):
      ...     return Outputs(images @ params["a"] @ params["b"], {}), model_state
      >>> params = {"a": jnp.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]]), "b": jnp.ones((3, 3))}
      >>> masks = {"a": params["a"] != 0, "b": jnp.array(True)}
      >>> small, widths, report = compact(Model(None, apply), Network(params, masks, {}), (2,))
      >>> small.params["a"].tolist(), small.params["b"].shape, report.families
      ([[1.0, 2.0], [3.0, 4.0]], (2, 3), (Before(name='a', before=3, after=2),))
    """
    masks = fitted_masks(network.params, network.masks)
    params, model_state = apply_masks(network.params, masks), network.model_state
    _check_finite(params)
    found = coupling or couple(model, params, model_state, image_shape)
    families = found.groups.families
    leaves = [*jax.tree.leaves(params), *jax.tree.leaves(model_state)]
    zeros = Zeros(found.program, leaves)
    constants = Constants(found, leaves, zeros)
    constant = constants.groups()
    cut = _all_but_one(found, [out | same for out, same in zip(silent_groups(found, zeros), constant, strict=True)])
    gone = [out & same for out, same in zip(cut, constant, strict=True)]
    nonzero = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(params))
    if any(out.any() for out in gone):
        trees = jax.tree.structure((params, model_state))
        params, model_state = jax.tree.unflatten(trees, [jnp.asarray(leaf) for leaf in constants.folded(gone)])
        masks = jax.tree.map(lambda mask, leaf: mask | (leaf != 0) if np.ndim(mask) else mask, masks, params)
    small = network._replace(
        params=slice_out(params, "params", families, cut),
        masks=slice_out(masks, "params", families, cut),
        model_state=slice_out(model_state, "model_state", families, cut),
    )
    report = Report(
        families=tuple(
            Before(family.name, family.size, family.size - int(out.sum())) for family, out in zip(families, cut, strict=True)
        ),
        parameters_before=sum(leaf.size for leaf in jax.tree.leaves(params)),
        parameters_after=sum(leaf.size for leaf in jax.tree.leaves(small.params)),
        nonzero_before=nonzero,
        nonzero_after=sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(small.params)),
        cut=tuple(cut),
        folded=sum(int(out.sum()) for out in gone),
    )
    return small, _widths(found, small.params), report


def _check_finite(params: Any) -> None:
    for path, leaf in zip(leaf_paths(params), jax.tree.leaves(params), strict=True):
        if not np.all(np.isfinite(np.asarray(leaf, np.float32))):
            raise SettingError(f"params/{path}", "not finite", "finite weights")


def _all_but_one(coupling: Coupling, silent: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What to cut such that every axis keeps an entry."""
    cut = [out.copy() for out in silent]
    families = coupling.groups.families
    sizes = {(leaf.tree, leaf.path): coupling.program.shapes[leaf.value] for leaf in coupling.program.leaves}
    left: dict[tuple[str, str, int], int] = {}
    for family, out in zip(families, cut, strict=True):
        for piece in family.slices:
            axis = (piece.tree, piece.path, piece.axis)
            left.setdefault(axis, sizes[piece.tree, piece.path][piece.axis])
            left[axis] -= piece.indices[out].size
    for family, out in zip(families, cut, strict=True):
        axes = [((piece.tree, piece.path, piece.axis), piece.indices.shape[1]) for piece in family.slices]
        if out.any() and any(left[axis] == 0 for axis, _ in axes):
            out[np.argmax(out)] = False
            for axis, entries in axes:
                left[axis] += entries
    return cut


def _widths(coupling: Coupling, params: Any) -> dict[str, int] | None:
    shapes = dict(zip(leaf_paths(params), map(np.shape, jax.tree.leaves(params)), strict=True))
    widths = {layer.path: shapes[layer.path][layer.output_axis] for layer in coupling.groups.layers}
    widths = {layer.path: widths[layer.path] for layer in coupling.groups.layers if layer.free_outputs or widths[layer.path] == 1}
    if not all(path.endswith(_KERNEL) for path in widths):
        return None
    return {path.removesuffix(_KERNEL): width for path, width in widths.items()}
