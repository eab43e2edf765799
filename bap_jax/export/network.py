"""A whole network to named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export.axes import arrange, arranged_shape, restore
from bap_jax.export.files import PREFIXES
from bap_jax.export.normalisation import normalisation_in
from bap_jax.export.scores import mask_of_scores
from bap_jax.export.torch_names import ARCHITECTURES, Entry, entries, layout_of
from bap_jax.mathematics.masks import kernels, leaf_paths
from bap_jax.types import ModelState, Params, PyTree

_ALIASES = (  # torchvision's names for the parts of a ResNet, and kuangliu's
    (("downsample.", "shortcut."), ("fc.", "linear.")),
    (("shortcut.", "downsample."), ("linear.", "fc.")),
)
_COUNTERS = ".num_batches_tracked"  # PyTorch's count of training batches, of which nothing depends here
_SCORES = ("popup_scores", "k_score", "scores", "mask_scores")  # HYDRA, HARP, edge-popup, movement pruning
_FLOAT = np.dtype(np.float32)
_TAKEN = "popup_scores"  # those whose mask can be made here


class Exported(NamedTuple):
    """A network as a file holds it."""

    tensors: dict[str, np.ndarray]  # every parameter and all model state; pruned weights are zero
    masks: dict[str, np.ndarray]  # bool, True where a weight is kept: of the prunable tensors, under the same names
    entries: tuple[Entry, ...]  # which is which


class Imported(NamedTuple):
    """A network as it was read from a file."""

    params: Params
    masks: PyTree  # bool, the structure of params, a scalar True where a leaf is not prunable
    model_state: ModelState
    layout: str
    converted: dict[str, str]  # tensors that were no float32, and what they were


def export_network(
    params: Params,
    masks: PyTree,
    model_state: ModelState,
    *,
    layout: str = "torch",
    architecture: str | None = None,
    image_shape: tuple[int, ...] = (),
) -> Exported:
    """The tensors of a network under the names, and with the axes, of a layout.

    Args:
      params, masks, model_state: a network, as :func:`bap_jax.checkpoint.restore_network` returns it.
      layout: ``"torch"`` or ``"jax"``.
      architecture: for ``"torch"``, whose names.
      image_shape: for ``"torch"``, (H, W, C).

    Returns:
      An :class:`Exported`.

    Raises:
      SettingError: see :func:`bap_jax.export.entries`.

    Example:
      >>> params = {"head": {"kernel": np.arange(4.0).reshape(2, 2)}}
      >>> masks = {"head": {"kernel": np.array([[True, False], [True, True]])}}
      >>> network = export_network(params, masks, {}, layout="torch", architecture="mlp", image_shape=(1, 1, 2))
      >>> network.tensors["head.weight"].tolist(), network.masks["head.weight"].tolist()
      ([[0.0, 2.0], [0.0, 3.0]], [[True, True], [False, True]])
    """
    found = entries(params, model_state, layout=layout, architecture=architecture, image_shape=image_shape)
    leaves = _leaves({"params": params, "model_state": model_state})
    kept = _leaves({"params": masks})
    tensors, mask_tensors = {}, {}
    for entry in found:
        tensor, mask = leaves[entry.path], kept.get(entry.path, np.array(True))
        tensors[entry.name] = arrange(np.where(mask, tensor, np.zeros((), tensor.dtype)), entry.arranged)
        if mask.ndim:
            mask_tensors[entry.name] = arrange(mask, entry.arranged)
    return Exported(tensors, mask_tensors, found)


def import_network(
    tensors: Mapping[str, np.ndarray],
    params: Params,
    model_state: ModelState,
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    keep: Literal["file", "nonzero", "scores"] = "file",
    sparsity: float | None = None,
    layout: str | None = None,
    architecture: str | None = None,
    image_shape: tuple[int, ...] = (),
    normalisation: Mapping[str, Any] | None = None,
    where: str = "the file",
) -> Imported:
    """A network from named tensors; the inverse of :func:`export_network`, to the bit.

    In the layout ``torch``, counters of batches are ignored, torchvision's names for a ResNet's parts (``fc``, ``downsample``)
    are understood, and so is a network pruned with ``torch.nn.utils.prune``, whose weights are ``weight_orig`` and
    ``weight_mask``. Wrappers' prefixes (``module.``, ``model.``, ``0.``, ...) may stand before some names only. Buffers ``mean``
    and ``std`` of a module that normalises the images have to say what the network here does. Other types of floating-point
    numbers become float32. Tensors that a published class registers without ever using them are ignored (``sub_block1`` of
    TRADES' wide ResNets).

    Args:
      tensors: by name, as :func:`bap_jax.export.read_tensors` returns them.
      params, model_state: of the network that is to be filled; only the structure and the shapes matter (``jax.eval_shape``).
      masks: bool by name, True where a weight is kept; a parameter without one is then not prunable.
      keep: with ``"file"``, the masks are those given, and everything is kept where none is; with ``"nonzero"``, what is not
        zero is kept; with ``"scores"``, what the largest ``popup_scores`` choose (HYDRA, edge-popup): see
        :func:`bap_jax.export.mask_of_scores`.
      sparsity: with ``"scores"``, the fraction of each layer that is pruned, which such a file does not say.
      layout: ``"torch"`` or ``"jax"``; by default, what the names look like.
      architecture: for ``"torch"``, whose names.
      image_shape: for ``"torch"``, (H, W, C).
      normalisation: what the network itself does to its input: ``mean`` and ``std`` of each channel; None for nothing.
      where: what the file is called in an error.

    Returns:
      An :class:`Imported` of numpy arrays; weights that are not kept are zero.

    Raises:
      CheckpointError: the first tensor that is missing, unexpected, of another shape or not finite; scores of a pruning method
        beside the weights; a mean or std that the network here does not have, with the line that makes one that has.
      SettingError: see :func:`bap_jax.export.entries`; an unknown ``keep``; scores without a sparsity, or one without scores.

    Example:
      >>> like = {"head": {"kernel": np.zeros((2, 1), np.float32)}}
      >>> given = {"fc.weight": np.array([[1.0, 0.0]], np.float32)}
      >>> import_network(given, like, {}, architecture="mlp", image_shape=(1, 1, 2))
      Traceback (most recent call last):
          ...
      bap_jax.errors.CheckpointError: the file has no tensor head.weight [1,2] (params/head/kernel); it has fc.weight
      >>> given = {"head.weight": np.array([[1.0, 0.0]], np.float32)}
      >>> network = import_network(given, like, {}, keep="nonzero", architecture="mlp", image_shape=(1, 1, 2))
      >>> network.masks["head"]["kernel"].tolist()
      [[True], [False]]
    """
    if keep not in ("file", "nonzero", "scores"):
        raise SettingError("keep", keep, "'file', 'nonzero' or 'scores'")
    if (keep == "scores") != (sparsity is not None):
        expected = "the fraction of each layer that its scores prune" if keep == "scores" else "none: it goes with scores only"
        raise SettingError("sparsity", sparsity, expected)
    layout = layout or layout_of(tuple(tensors))
    found = entries(params, model_state, layout=layout, architecture=architecture, image_shape=image_shape)
    given, kept = dict(tensors), dict(masks or {})
    if layout == "torch":
        names = {entry.name for entry in found}
        unused = ARCHITECTURES[architecture].unused if architecture is not None else ()
        given, pruned = _understood(given, names, where, unused, sparsity)
        given = _without_normalisation(given, names, normalisation, architecture, image_shape, where)
        kept = {_alias(name, names): mask for name, mask in kept.items()} | pruned
    if keep == "scores" and not kept:
        raise CheckpointError(f"{where} has no {_TAKEN}, from which masks could be made")
    _check(given, {entry.name: entry for entry in found}, where)
    wanted = _leaves({"params": params, "model_state": model_state})
    _check_masks(kept, {entry.name: entry for entry in found if entry.path.startswith("params/")}, where)
    leaves: dict[str, np.ndarray] = {}
    mask_leaves: dict[str, np.ndarray] = {}
    converted: dict[str, str] = {}
    for entry in found:
        tensor = _converted(given[entry.name], np.dtype(wanted[entry.path].dtype), f"{where}: tensor {entry.name}")
        if tensor.dtype != given[entry.name].dtype:
            converted[entry.name] = str(given[entry.name].dtype)
        leaf = restore(tensor, entry.arranged)
        if entry.path.startswith("params/"):
            prunable = kernels(entry.path, wanted[entry.path])
            if keep == "nonzero":
                mask = leaf != 0 if prunable else np.array(True)
            elif entry.name in kept:
                mask = restore(kept[entry.name].astype(bool), entry.arranged)
            else:  # a file of masks names all that is prunable
                mask = np.ones(entry.shape, bool) if prunable and masks is None else np.array(True)
            mask_leaves[entry.path] = mask
            leaf = np.where(mask, leaf, np.zeros((), leaf.dtype))
        leaves[entry.path] = leaf
    return Imported(
        _filled({"params": params}, leaves)["params"],
        _filled({"params": params}, mask_leaves)["params"],
        _filled({"model_state": model_state}, leaves)["model_state"],
        layout,
        converted,
    )


def _converted(tensor: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # refused below, by name
        tensor = tensor.astype(dtype)
    if not np.all(np.isfinite(tensor)):
        raise CheckpointError(f"{what} holds NaN or infinity")
    return tensor


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Every leaf by its path, as numpy arrays where it is an array, as it is where it is only a shape."""
    values = (leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return dict(zip(leaf_paths(tree), values, strict=True))


def _filled(tree: PyTree, leaves: Mapping[str, np.ndarray]) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[path] for path in leaf_paths(tree)])


def _alias(name: str, names: set[str]) -> str:
    """The name under which a tensor is known here; as it is if it is not.

    Example:
      >>> _alias("module.model.fc.weight", {"linear.weight"}), _alias("0.mean", {"linear.weight"})
      ('linear.weight', '0.mean')
    """
    given = name
    while name not in names:
        for aliases in _ALIASES:
            other = name
            for theirs, ours in aliases:
                other = other.replace(theirs, ours)
            if other in names:
                return other
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return given
        name = name.removeprefix(prefix)
    return name


def _without_prefixes(name: str) -> str:
    """A name in a file without what programs put before the network's own.

    Example:
      >>> _without_prefixes("module.model.fc.weight")
      'fc.weight'
    """
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _understood(
    given: dict[str, np.ndarray], names: set[str], where: str, unused: tuple[str, ...], sparsity: float | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(tensors, masks) without counters and what is unused, under the names known here."""
    tensors: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    came_from: dict[str, str] = {}
    for name, tensor in given.items():
        if name.endswith(_COUNTERS) or _without_prefixes(name).startswith(unused):
            continue
        if name.endswith("_mask") and name.removesuffix("_mask") + "_orig" in given:
            masks[_alias(name.removesuffix("_mask"), names)] = tensor
            continue
        pruned = name.endswith("_orig") and name.removesuffix("_orig") + "_mask" in given
        known = _alias(name.removesuffix("_orig") if pruned else name, names)
        last = known.split(".")[-1]
        if known not in names and last in _SCORES:
            if last == _TAKEN and sparsity is not None:
                masks[_alias(name.removesuffix(last) + "weight", names)] = mask_of_scores(
                    _converted(tensor, _FLOAT, name), sparsity
                )
                continue
            other = f"--masks scores with --sparsity makes it of {_TAKEN}; or " if last == _TAKEN else ""
            raise CheckpointError(
                f"{where} has {name}, scores by which a pruning method (HYDRA, HARP, edge-popup) chooses weights: "
                f"{other}multiply the mask that follows from them into the weights, and save these without scores"
            )
        if came_from.setdefault(known, name) != name:
            raise CheckpointError(f"{where} has {came_from[known]} and {name}, which are both {known} here: save one of them")
        tensors[known] = tensor
    return tensors, masks


def _without_normalisation(
    given: dict[str, np.ndarray],
    names: set[str],
    ours: Mapping[str, Any] | None,
    architecture: str | None,
    image_shape: tuple[int, ...],
    where: str,
) -> dict[str, np.ndarray]:
    """The tensors without the buffers of a module that normalises images; raises if the network here does otherwise."""
    channels = image_shape[-1] if image_shape else 1
    theirs, found = normalisation_in(given, channels, names)
    for which, plain in (("mean", 0.0), ("std", 1.0)):
        here = (ours or {}).get(which) or (plain,) * channels
        if which in theirs and not np.allclose(theirs[which], here, rtol=1e-5, atol=1e-7):
            text = ", ".join(f"{name} = {theirs[part]}" for name, part in found.items())
            options = ", ".join(f"{part}={values}" for part, values in theirs.items())
            flags = " ".join(f"--model.{part} {','.join(map(str, values))}" for part, values in theirs.items())
            raise CheckpointError(
                f"{where} normalises its input: {text}; the network here has {which} {tuple(here)}. One that does the same: "
                f'bap.models.build("{architecture}", num_classes=..., {options}); for bap import, {flags}'
            )
    return {name: tensor for name, tensor in given.items() if name not in found}


def _check(given: Mapping[str, np.ndarray], wanted: Mapping[str, Entry], where: str) -> None:
    for name, entry in wanted.items():
        shape = _shape(entry.file_shape)
        if name not in given:
            unused = next((other for other in given if other not in wanted), None)
            has = f"; it has {unused}" if unused else ""
            raise CheckpointError(f"{where} has no tensor {name} {shape} ({entry.path}){has}")
        tensor = given[name]
        if tensor.shape != entry.file_shape:
            raise CheckpointError(f"{where}: tensor {name} is {_shape(tensor.shape)}, expected {shape} ({entry.path})")
        if not jnp.issubdtype(tensor.dtype, jnp.number):
            raise CheckpointError(f"{where}: tensor {name} is of type {tensor.dtype}, expected numbers")
    for name, tensor in given.items():
        if name not in wanted:
            raise CheckpointError(f"{where} has a tensor {name} {_shape(tensor.shape)}, which this network has no place for")


def _check_masks(masks: Mapping[str, np.ndarray], wanted: Mapping[str, Entry], where: str) -> None:
    for name, mask in masks.items():
        if name not in wanted:
            raise CheckpointError(f"{where} has a mask of {name}, which is no parameter of this network")
        if mask.shape != wanted[name].file_shape:
            shape = _shape(arranged_shape(wanted[name].shape, wanted[name].arranged))
            raise CheckpointError(f"{where}: the mask of {name} is {_shape(mask.shape)}, expected {shape}")
        if not np.all((mask == 0) | (mask == 1)):
            raise CheckpointError(f"{where}: the mask of {name} holds other values than 0 and 1")


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
