"""Structured masks: whole filters, channels, kernels, rows, columns, blocks, N of M weights, or coupled groups of channels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import SettingError
from bap_jax.mathematics.channels import Family, Groups, Layer
from bap_jax.mathematics.masks import Prunable, fitted_masks, leaf_paths
from bap_jax.mathematics.sparsity import kept_count
from bap_jax.mathematics.top_k import top_k
from bap_jax.types import Array, Params, PyTree

Criterion = Literal["l1", "l2", "mean", "batch_norm", "random"]
Ranking = Literal["local", "global"]
StructuredScope = Literal["layer", "coupled"]

STRUCTURES = ("filter", "channel", "kernel", "row", "column", "block", "N:M")


class Structures(NamedTuple):
    """What :func:`group_masks` is told of the structures of a network, for those who score them otherwise than by weights."""

    groups: Groups
    structure: str = "filter"
    scope: StructuredScope = "layer"
    block: tuple[int, int] = (4, 4)


class _Structures(NamedTuple):
    """What is kept or pruned as one, in one layer or family: scores of any shape, and how a mask of them covers the leaves."""

    scores: Array
    cover: Callable[[Array], dict[str, Array]]  # bool, shaped like the scores -> masks that broadcast against the leaves


def group_masks(
    params: Params,
    sparsity: float | Array,
    groups: Groups,
    *,
    structure: str = "filter",
    scope: StructuredScope = "layer",
    criterion: Criterion = "l1",
    ranking: Ranking = "local",
    block: tuple[int, int] = (4, 4),
    keep_one: bool = True,
    within: PyTree | None = None,
    key: Array | None = None,
) -> PyTree:
    """Masks that keep whole structures, those of the highest score.

    With ``scope="layer"`` every layer is seen by itself, a kernel as the matrix W [out, in·h·w] of torch's order; that of a dense
    layer on a flattened map too, whose inputs are channels, rows, columns there, as far as ``groups.families`` tell the map:

    * ``filter``: an output channel, W[o]; with it go its bias and the BatchNorm scale and bias that follow it, so that behind
      BatchNorm and ReLU it is exactly zero. Logits are never pruned;
    * ``channel``: an input channel, W[:, i·h·w:(i+1)·h·w]. Those of the image are never pruned;
    * ``kernel``: the h·w weights between one input and one output channel;
    * ``row``: W[o], the filter's weights alone;
    * ``column``: W[:, j];
    * ``block``: a rectangle of W, ``block`` rows by columns; at the edges what is left of one;
    * ``N:M``, as ``2:4``: of every M weights next to each other in a row of W, N are kept. On the way there more are, so that a
      ramp works: max(N, round(M·(1 − sparsity))). A layer whose rows are not a multiple of M stays dense.

    With ``scope="coupled"`` the groups of ``groups.families`` are kept or pruned as a whole, everywhere they have entries: what
    compaction can cut. They are scored by the weights that make their channels.

    Args:
      params: a pytree of arrays; of any scores, for score-based pruning.
      sparsity: the share of the structures that is pruned, in [0, 1]; may be traced.
      groups: of the network, see :func:`bap_jax.structure.groups_of`.
      structure: see above; for ``scope="coupled"`` it is ``"filter"``.
      scope: ``"layer"`` or ``"coupled"``.
      criterion: what a structure is scored by: ``"l1"`` Σ|w|, ``"l2"`` √Σw², ``"mean"`` Σ|w| / number of weights,
        ``"batch_norm"`` Σ|scale| of the BatchNorm behind it (filters and coupled groups), ``"random"``.
      ranking: ``"local"`` gives every layer or family its own count; ``"global"`` compares all structures together, for which
        ``"mean"`` makes layers of different sizes comparable. ``N:M`` is local.
      block: height and width of a block.
      keep_one: at least one structure of every layer or family is kept.
      within: a mask tree: what it prunes is not kept. A structure may be kept while it keeps any of its weights.
      key: for ``"random"``.

    Returns:
      A mask tree: bool arrays for the leaves that structures cover, scalar True for the others. Counts are exact:
      :func:`bap_jax.mathematics.sparsity.kept_count` of the number of structures, per layer or of all; ties go to the earlier
      one.

    Raises:
      SettingError: an unknown name, nothing to prune, or a criterion that does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]]), "bias": jnp.zeros(2)}
      >>> masks = group_masks(params, 0.5, Groups((), (Layer("kernel", 1, 0, ("bias",)),)))
      >>> masks["kernel"].tolist(), masks["bias"].tolist()
      ([[False, True], [False, True]], [False, True])
      >>> group_masks(params, 0.5, Groups((), (Layer("kernel", 1, 0),)), structure="1:2")["kernel"].tolist()
      [[False, False], [True, True]]

    References:
      Merkle, Samsinger and Schöttle 2022, "Pruning in the Face of Adversaries"; Li et al. 2017, "Pruning Filters for Efficient
      ConvNets"; Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming"; Mishra et al. 2021,
      "Accelerating Sparse Deep Neural Networks".
    """
    check_structure(structure, scope, criterion, ranking, block)
    leaves = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    allowed = (
        None if within is None else dict(zip(leaf_paths(within), jax.tree.leaves(fitted_masks(params, within)), strict=True))
    )
    options: dict[str, Any] = {"structure": structure, "scope": scope, "block": block}
    units = _units(leaves, groups, criterion=criterion, **options)
    if criterion == "random":
        if key is None:
            raise SettingError("key", None, "a key for criterion = 'random'")
        keys = jax.random.split(key, len(units))
        units = [each._replace(scores=jax.random.uniform(own, each.scores.shape)) for each, own in zip(units, keys, strict=True)]
    if allowed is not None:
        opened = _open_units(leaves, allowed, groups, **options)
        units = [
            each._replace(scores=jnp.where(open_one.scores > 0, each.scores, -jnp.inf))
            for each, open_one in zip(units, opened, strict=True)
        ]
    kept = _kept(units, sparsity, structure, ranking, keep_one)
    masks = {path: jnp.bool_(True) for path in leaves}
    for each, keep in zip(units, kept, strict=True):
        for path, mask in each.cover(keep & (each.scores > -jnp.inf)).items():
            masks[path] = masks[path] & jnp.broadcast_to(mask, leaves[path].shape)
    if allowed is not None:
        masks = {path: mask & jnp.broadcast_to(allowed[path], mask.shape) if mask.ndim else mask for path, mask in masks.items()}
    return jax.tree.unflatten(jax.tree.structure(params), [masks[path] for path in leaves])


def covered(groups: Groups, *, structure: str, scope: StructuredScope) -> Prunable:
    """Which leaves structures cover, as the rule of what is prunable: their masks are arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> prunable = covered(Groups((), (Layer("kernel", 1, 0, ("bias",)),)), structure="row", scope="layer")
      >>> prunable("kernel", jnp.ones((2, 3))), prunable("bias", jnp.ones(3))
      (True, False)
    """
    if scope == "coupled":
        paths = {piece.path for family in groups.families for piece in family.slices if piece.tree == "params"}
        return lambda path, leaf: path in paths
    kernels = {layer.path: layer for layer in _layers(groups.layers, structure)}
    beside = {path for layer in kernels.values() for path in (*layer.shifts, *layer.scales)} if structure == "filter" else set()
    n_of_m = _n_of_m(structure)

    def prunable(path: str, leaf: Array) -> bool:
        if path in kernels and n_of_m:
            return math.prod(leaf.shape) // leaf.shape[kernels[path].output_axis] % n_of_m[1] == 0
        return path in kernels or path in beside

    return prunable


def structures_pruned(params: Params, masks: PyTree, groups: Groups, **options: Any) -> Array:
    """The share of the structures of which masks keep nothing, float32 scalar in [0, 1].

    Args:
      params: a pytree of arrays.
      masks: for every leaf bool, of its shape or a scalar.
      groups: see :func:`group_masks`.
      **options: ``structure``, ``scope`` and ``block`` likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> masks = {"kernel": jnp.array([[True, False], [False, False]])}
      >>> float(structures_pruned({"kernel": jnp.ones((2, 2))}, masks, Groups((), (Layer("kernel", 1, 0),)), structure="filter"))
      0.5
    """
    leaves = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
    allowed = dict(zip(leaf_paths(masks), jax.tree.leaves(fitted_masks(params, masks)), strict=True))
    opened = [each.scores > 0 for each in _open_units(leaves, allowed, groups, **options)]
    return 1.0 - sum(jnp.sum(each, dtype=jnp.int32) for each in opened) / jnp.float32(sum(each.size for each in opened))


def check_structure(structure: str, scope: str, criterion: str, ranking: str, block: tuple[int, int]) -> None:
    """Refuses names and combinations that mean nothing.

    Raises:
      SettingError: the first of them.
    """
    kind = "N:M" if _n_of_m(structure) else structure
    if kind not in STRUCTURES or structure == "N:M":
        raise SettingError("structure", structure, f"one of {', '.join(STRUCTURES[:-1])}, or N:M as 2:4 with 0 < N < M")
    for name, value, known in (
        ("scope", scope, get_args(StructuredScope)),
        ("criterion", criterion, get_args(Criterion)),
        ("ranking", ranking, get_args(Ranking)),
    ):
        if value not in known:
            raise SettingError(name, value, f"one of {', '.join(known)}")
    if scope == "coupled" and structure != "filter":
        raise SettingError("structure", structure, "'filter' with scope = 'coupled', which prunes whole groups of channels")
    if criterion == "batch_norm" and structure != "filter":
        raise SettingError("criterion", criterion, "another one: only filters have a BatchNorm scale")
    if kind == "N:M" and ranking != "local":
        raise SettingError("ranking", ranking, "'local' with N:M, which counts in every M weights")
    if len(block) != 2 or any(not isinstance(size, int) or size < 1 for size in block):
        raise SettingError("block", block, "two positive integers, rows by columns")


def _n_of_m(structure: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+):(\d+)", structure)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        return None
    return int(found[1]), int(found[2])


def _layers(layers: Sequence[Layer], structure: str) -> list[Layer]:
    if structure in ("filter", "row"):
        return [layer for layer in layers if layer.free_outputs]
    return [layer for layer in layers if layer.free_inputs] if structure == "channel" else list(layers)


def _units(
    leaves: dict[str, Array],
    groups: Groups,
    *,
    structure: str,
    scope: StructuredScope = "layer",
    criterion: Criterion = "l1",
    block: tuple[int, int] = (4, 4),
) -> list[_Structures]:
    """The structures of every layer or family that has any, with their scores."""
    if scope == "coupled":
        found = [_coupled(leaves, family, criterion) for family in groups.families]
    else:
        chosen = _layers(groups.layers, structure)
        made = (_of_layer(leaves, layer, _order(groups, layer), structure, criterion, block) for layer in chosen)
        found = [each for each in made if each is not None]
    if not found:
        raise SettingError("groups", groups, f"a network that has a {structure} to prune")
    return found


def _open_units(leaves: dict[str, Array], allowed: dict[str, Array], groups: Groups, **options: Any) -> list[_Structures]:
    """The same structures, scored by how many weights masks keep of each."""
    kept = {path: jnp.broadcast_to(allowed[path], leaf.shape).astype(jnp.float32) for path, leaf in leaves.items()}
    return _units(kept, groups, **options | {"criterion": "l1"})


def _score(pool: Callable[[Array], Array], weights: Array, criterion: Criterion) -> Array:
    """What a structure is worth; ``pool`` sums over each."""
    weights = weights.astype(jnp.float32)
    if criterion == "l2":
        return jnp.sqrt(pool(weights**2))
    total = pool(jnp.abs(weights))
    return total / pool(jnp.ones_like(weights)) if criterion == "mean" else total


def _order(groups: Groups, layer: Layer) -> np.ndarray | None:
    """The inputs of a dense layer on a flattened map in torch's order, all of the first channel, then all of the second, ....

    None where they are in it already, or no one family reads them all.

    Example:
      >>> from bap_jax.mathematics.channels import Slice
      >>> map_of_two = Family("conv", (Slice("params", "fc", 0, np.array([[0, 2], [1, 3]]), "reads"),))
      >>> _order(Groups((map_of_two,), ()), Layer("fc", 1, 0)).tolist()
      [0, 2, 1, 3]
    """
    place = ("params", layer.path, layer.input_axis)
    pieces = [piece for family in groups.families for piece in family.slices if (piece.tree, piece.path, piece.axis) == place]
    if len(pieces) != 1 or pieces[0].indices.shape[1] == 1:
        return None
    return pieces[0].indices.ravel()


def _of_layer(
    leaves: dict[str, Array], layer: Layer, order: np.ndarray | None, structure: str, criterion: Criterion, block: tuple[int, int]
) -> _Structures | None:
    kernel = leaves[layer.path]
    axes = (layer.output_axis, layer.input_axis)
    ordered = jnp.moveaxis(kernel, axes, (0, 1))  # [out, in, h, w]
    if order is not None and len(order) != ordered.shape[1]:
        order = None
    ordered = ordered if order is None else ordered[:, order]
    sizes = ordered.shape[0], ordered.shape[1], math.prod(ordered.shape[2:])
    form = _form(structure, sizes, block)
    if form is None:
        return None
    pool, spread = form
    if criterion == "batch_norm":
        if not layer.scales:
            raise SettingError("criterion", criterion, f"another one: no BatchNorm scale follows {layer.path} alone")
        scores = sum((jnp.abs(leaves[path]) for path in layer.scales), jnp.zeros(sizes[0]))
    else:
        scores = _score(pool, ordered.reshape(sizes), criterion)

    def cover(keep: Array) -> dict[str, Array]:
        mask = jnp.broadcast_to(spread(keep), sizes).reshape(ordered.shape)
        mask = jnp.moveaxis(mask if order is None else mask[:, np.argsort(order)], (0, 1), axes)
        beside = (*layer.shifts, *layer.scales) if structure == "filter" else ()
        return {layer.path: mask} | dict.fromkeys(beside, keep)

    return _Structures(scores, cover)


_Form = tuple[Callable[[Array], Array], Callable[[Array], Array]]


def _form(structure: str, sizes: tuple[int, int, int], block: tuple[int, int]) -> _Form | None:
    """How the structures lie in a kernel [out, in, h·w]: their sums, and their masks spread over it."""
    n_of_m = _n_of_m(structure)
    rows, columns = sizes[0], sizes[1] * sizes[2]
    if n_of_m:
        width = n_of_m[1]
        if columns % width:
            return None
        return lambda weights: weights.reshape(rows, -1, width), lambda keep: keep.reshape(sizes)
    if structure == "block":
        (height, width), padding = block, ((0, -rows % block[0]), (0, -columns % block[1]))

        def pool(weights: Array) -> Array:
            padded = jnp.pad(weights.reshape(rows, columns), padding)
            return padded.reshape(padded.shape[0] // height, height, -1, width).sum((1, 3))

        def spread(keep: Array) -> Array:
            return jnp.repeat(jnp.repeat(keep, height, 0), width, 1)[:rows, :columns].reshape(sizes)

        return pool, spread
    summed = {"filter": (1, 2), "row": (1, 2), "channel": (0, 2), "kernel": (2,), "column": (0,)}[structure]
    return lambda weights: weights.sum(summed), lambda keep: jnp.expand_dims(keep, summed)


def _coupled(leaves: dict[str, Array], family: Family, criterion: Criterion) -> _Structures:
    pieces = [piece for piece in family.slices if piece.tree == "params"]
    if criterion == "batch_norm":
        scored = [piece for piece in pieces if piece.role == "scales"]
        if not scored:
            raise SettingError("criterion", criterion, f"another one: no BatchNorm scales the channels of {family.name}")
    else:
        makers = [piece for piece in pieces if piece.role == "makes"]
        scored = makers or pieces

    def pool(power: Callable[[Array], Array]) -> Array:
        total = jnp.zeros(family.size)
        for piece in scored:
            leaf = power(leaves[piece.path].astype(jnp.float32))
            along = leaf.sum(tuple(axis for axis in range(leaf.ndim) if axis != piece.axis))
            total = total + along[piece.indices].sum(1)
        return total

    def cover(keep: Array) -> dict[str, Array]:
        masks: dict[str, Array] = {}
        for piece in pieces:
            leaf = leaves[piece.path]
            along = jnp.ones(leaf.shape[piece.axis], bool).at[piece.indices].set(keep[:, None])
            mask = along.reshape([-1 if axis == piece.axis else 1 for axis in range(leaf.ndim)])
            masks[piece.path] = masks.get(piece.path, jnp.bool_(True)) & mask
        return masks

    if criterion == "l2":
        return _Structures(jnp.sqrt(pool(jnp.square)), cover)
    total = pool(jnp.abs)
    return _Structures(total / pool(jnp.ones_like) if criterion == "mean" else total, cover)


def _kept(units: Sequence[_Structures], sparsity: float | Array, structure: str, ranking: Ranking, keep_one: bool) -> list[Array]:
    """Which structures to keep."""
    scores = [each.scores for each in units]
    n_of_m = _n_of_m(structure)
    if n_of_m:
        count = jnp.maximum(n_of_m[0], kept_count(n_of_m[1], sparsity))
        return [_largest_of_each(each, count) for each in scores]
    least = int(keep_one)
    if ranking == "local":
        return [top_k([each], jnp.maximum(kept_count(each.size, sparsity), least))[0] for each in scores]
    if keep_one:
        scores = [_with_best_first(each) for each in scores]
    return top_k(scores, jnp.maximum(kept_count(sum(each.size for each in scores), sparsity), least * len(scores)))


def _with_best_first(scores: Array) -> Array:
    """The first of the largest at infinity, unless nothing there may be kept."""
    best = jnp.argmax(scores)
    flat = scores.ravel()
    return flat.at[best].set(jnp.where(flat[best] > -jnp.inf, jnp.inf, -jnp.inf)).reshape(scores.shape)


def _largest_of_each(scores: Array, count: Array) -> Array:
    """The ``count`` largest along the last axis, ties to the earlier."""
    one, other = scores[..., :, None], scores[..., None, :]
    earlier = jnp.asarray(np.tri(scores.shape[-1], k=-1, dtype=bool))
    return jnp.sum((other > one) | ((other == one) & jnp.broadcast_to(earlier, (*scores.shape, scores.shape[-1]))), -1) < count
