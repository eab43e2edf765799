"""Exporting a run's network to files that others can read, and importing one from such a file as a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint import Checkpoints, Network, check_run, open_run, read_json, versions
from bap_jax.data import Source
from bap_jax.errors import SettingError
from bap_jax.export import (
    ARCHITECTURES,
    LAYOUTS,
    Difference,
    Exported,
    Imported,
    Stored,
    differences,
    export_network,
    import_network,
    layout_of,
    model_card,
    normalisation_in,
    read_stored,
    read_tensors,
    write_tensors,
)
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.models import count_parameters
from bap_jax.plugins import import_object, is_import_path
from bap_jax.runs.datasets import example_of
from bap_jax.runs.naming import IMPORTED
from bap_jax.runs.network_options import keywords_of
from bap_jax.runs.parsing import format_value, parse_numbers
from bap_jax.runs.recipe import network_of
from bap_jax.runs.restore import Stored as StoredNetwork
from bap_jax.runs.restore import stored_network
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import parameters_of
from bap_jax.runs.trust import NOTHING, Trust, code_in, remember
from bap_jax.types import ModelState, Params

FILE = Path("export") / "model.safetensors"  # inside a run folder
RECORD = "import.json"
_MASKS, _MASKS_OF = ".masks.safetensors", "weights_sha256"
_KEEP: dict[str, Literal["nonzero", "scores"]] = {"nonzero": "nonzero", "scores": "scores"}  # else what the file has
_NOTABLE_ZEROS = 0.01  # of the weights that count as kept: trained weights are hardly ever exactly zero


class Files(NamedTuple):
    """What an export consists of."""

    weights: Path
    masks: Path
    card: Path


class ImportedRun(NamedTuple):
    """What is said about an imported network."""

    run: Path
    layout: str
    num_parameters: int
    sparsity: float
    masks: str  # where they came from
    normalisation: dict[str, Any] | None
    converted: dict[str, str]
    notes: tuple[str, ...] = ()


def files_of(weights: Path) -> Files:
    """The files that belong together: model.safetensors, model.masks.safetensors, model.json."""
    return Files(weights, weights.with_name(weights.stem + _MASKS), weights.with_suffix(".json"))


def export_run(
    run: Path,
    *,
    out: Path | None = None,
    layout: str = "auto",
    architecture: str | None = None,
    checkpoint: str = "last",
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> tuple[Files, dict[str, Any]]:
    """Writes the weights of a run's network, its masks and its model card. Files of the same names are replaced.

    Args:
      run: a run folder.
      out: the file of the weights; by default ``export/model.safetensors`` in the run folder.
      layout: ``torch``, ``jax``, or ``auto``: torch where the architecture's names in PyTorch are known.
      architecture: whose names the layout torch takes; by default, the run's model.
      checkpoint: ``last``, ``best``, ``ema`` or a step.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the images' shape.
      trust: which code the run's configuration may name.

    Returns:
      The files, and the card.

    Raises:
      SettingError: a run, checkpoint, layout or architecture that is not there, or a file that cannot be written.
      CheckpointError: the checkpoint is not of the run's model.
    """
    _check_layout(layout)
    _check_architecture(architecture)
    files = files_of(Path(run) / FILE if out is None else Path(out))
    if files.weights.suffix != FILE.suffix or files.weights.is_dir():
        raise SettingError("--out", str(files.weights), f"a file name that ends in {FILE.suffix}")
    stored = stored_network(run, checkpoint, trust)
    example = example_of(stored.settings, data_dir)
    network = stored.on(example).network
    named = architecture or stored.settings.model
    if layout == "auto":
        layout = "torch" if named in ARCHITECTURES else "jax"
    exported = export_network(*network, layout=layout, architecture=named, image_shape=example.image_shape)
    card = card_of(run, stored, exported, example, layout=layout, architecture=named)
    make_folder(files.weights)
    weights = write_tensors(files.weights, exported.tensors, card)
    digest = hashlib.sha256(weights).hexdigest()
    masks = write_tensors(files.masks, exported.masks, {_MASKS_OF: digest})
    card["files"] = {
        "weights": {"name": files.weights.name, "bytes": len(weights), "sha256": digest},
        "masks": {"name": files.masks.name, "bytes": len(masks), "sha256": hashlib.sha256(masks).hexdigest()},
    }
    write_atomic(files.card, json_text(card, indent=1) + "\n")
    return files, card


def card_of(
    run: Path, stored: StoredNetwork, exported: Exported, example: Source, *, layout: str, architecture: str
) -> dict[str, Any]:
    """The model card of a run's network: see :func:`bap_jax.export.model_card`.

    Args:
      run: its folder.
      stored: its checkpoint.
      exported: the tensors, in ``layout``.
      example: data of the run, for the shape of its images, their bounds and the number of classes.
      layout, architecture: as for :func:`bap_jax.export.model_card`.
    """
    settings = stored.settings
    card = model_card(
        exported,
        layout=layout,
        architecture=architecture,
        num_classes=example.num_classes,
        image_shape=example.image_shape,
        bounds=example.bounds,
        normalisation=_normalisation(settings, example),
        batch_norm=_shapes_of(settings, example)[2],
        about=_provenance(run, settings, stored.step, stored.about),
    )
    if settings.image_size is not None:
        size = settings.image_size
        card["input"]["resized"] = f"shorter side to {size} pixels, bilinear (Pillow's, over all pixels), then the middle square"
    return card


def make_folder(file: Path) -> None:
    """Makes the folder of a file that is to be written.

    Raises:
      SettingError: it cannot be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("--out", str(file), f"a file in a folder that can be written ({error.strerror})") from error


def import_run(
    file: Path,
    *,
    model: str,
    data: str,
    out: Path,
    data_dir: str | None = None,
    image_size: int | None = None,
    layout: str = "auto",
    architecture: str | None = None,
    masks: str = "file",
    sparsity: float | None = None,
    key: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> ImportedRun:
    """Makes a run folder of the weights in a file; nothing is written before all of them are found to fit.

    Args:
      file: ``.safetensors``, or a PyTorch state dict.
      model: the network, as ``bap train --model`` takes it.
      data: what it classifies, as ``bap train --data`` takes it.
      out: the run folder; absent or empty.
      data_dir, image_size: as for ``bap train``.
      layout: ``torch``, ``jax``, or ``auto``: what the names look like.
      architecture: whose names the layout torch takes; by default, the model.
      masks: ``file``, those beside the file, if any are, and else everything is kept; ``nonzero``, what is not zero is kept;
        ``scores``, what the largest ``popup_scores`` in the file choose.
      sparsity: with ``scores``, the fraction of each layer that they prune.
      key: where in a PyTorch checkpoint the weights stand, if not where :func:`bap_jax.export.read_stored` finds them.
      options: of the network, by dotted names: ``{"model.depth": 16}``. Where neither ``model.mean`` nor ``model.std`` is given,
        they are those of the file, if it says: its card, or a module of a PyTorch network that normalises the images.

    Returns:
      What is known about the network.

    Raises:
      SettingError: an unknown name, an occupied folder, a file that is none or not whole, or whose card says otherwise than the
        model and the data: shape and bounds of the images, classes, normalisation, BatchNorm.
      CheckpointError: the first tensor that is missing, unexpected, of another shape or not finite.
    """
    _check_layout(layout)
    _check_architecture(architecture)
    if masks not in ("file", "nonzero", "scores"):
        raise SettingError("--masks", masks, "file, nonzero or scores")
    if masks == "scores" and (sparsity is None or not 0 <= sparsity < 1):
        raise SettingError("--sparsity", sparsity, "the fraction of each layer that its scores prune, ≥ 0 and < 1")
    if masks != "scores" and sparsity is not None:
        raise SettingError("--sparsity", sparsity, "none: it goes with --masks scores only")
    if image_size is not None and image_size < 1:
        raise SettingError("--image-size", image_size, "a whole number of at least 1")
    arm = f"{IMPORTED} {Path(out).name.replace(',', ' ')}"  # two imported networks are two arms of a report
    settings = Settings(
        data=data,
        data_dir=data_dir,
        image_size=image_size,
        model=model,
        budget=arm,
        pruner=IMPORTED,
        final_sparsity=0.0,
        **options,
    ).check_model()
    check_run(out, settings.as_dict())
    stored = read_stored(file, key)
    example = example_of(settings, data_dir)  # once the file is known to be one
    taken = _taken_over(stored, settings, example, layout)
    try:
        settings = settings.changed(**taken).check_model()
    except SettingError as error:
        raise SettingError(error.name, error.value, f"{error.expected}; it is taken from {file}") from None
    read = read_network(
        file,
        settings,
        lambda: example,
        stored=stored,
        masks=masks,
        sparsity=sparsity,
        layout=layout,
        architecture=architecture,
    )
    imported, stored, digest, normalisation = read
    sparsity = float(measured_sparsity(imported.masks))
    settings = settings.changed(final_sparsity=round(sparsity, 6))
    record = {"file": Path(file).name, "sha256": digest, "layout": imported.layout, "masks": masks, "key": stored.key}
    with open_run(out, settings.as_dict()) as folder, Checkpoints(folder.checkpoints) as checkpoints:
        network = Network(imported.params, imported.masks, imported.model_state)
        checkpoints.save(0, {"step": np.int32(0)}, network=network, metadata={"finished": True, "phase": 0})
        checkpoints.restore_network()  # nothing is said to be there that cannot be read back
        noted = record | {"converted": imported.converted, "card": stored.about}
        write_atomic(Path(out) / RECORD, json_text(noted, indent=1) + "\n")
        remember(out, code_in(settings.as_dict()).values())
    from_file = "everything is kept" if _all_kept(imported.masks) else "the file's"
    found = {"nonzero": "kept where not zero", "scores": "of the scores in the file"}.get(masks, from_file)
    notes = (*_notes_on_taken(taken), *_notes_on_file(stored, normalisation), *_notes_on_zeros(imported))
    size = count_parameters(imported.params)
    return ImportedRun(Path(out), imported.layout, size, sparsity, found, normalisation, imported.converted, notes)


class Read(NamedTuple):
    """A file of weights, read and found to fit."""

    network: Imported
    stored: Stored
    digest: str  # SHA-256 of the file
    normalisation: dict[str, Any] | None


def read_network(
    file: Path,
    settings: Settings,
    example: Callable[[], Source],
    *,
    masks: str = "file",
    sparsity: float | None = None,
    layout: str = "auto",
    architecture: str | None = None,
    stored: Stored | None = None,
) -> Read:
    """The network in a file of weights, which has to be the one that the settings name.

    Args:
      file, layout, architecture: as for :func:`import_run`.
      settings: their model, and the data that errors name.
      example: makes a set of that data, for the shape of its images, their bounds and the number of classes.
      masks, sparsity: ``file``, ``nonzero`` or ``scores`` as there; or ``none``: everything is kept, whatever masks are there.
      stored: what the file holds, if it was read already.

    Raises:
      SettingError, CheckpointError: as :func:`import_run` of the file.
    """
    stored = stored or read_stored(file)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    stored_masks = _stored_masks(Path(file), digest) if masks == "file" else None
    source = example()
    normalisation = _normalisation(settings, source)
    params, model_state, batch_norm = _shapes_of(settings, source)
    _check_card(stored.about, file, settings, source, normalisation, batch_norm)
    imported = import_network(
        stored.tensors,
        params,
        model_state,
        masks=stored_masks,
        keep=_KEEP.get(masks, "file"),
        sparsity=sparsity,
        layout=None if layout == "auto" else layout,
        architecture=architecture or settings.model,
        image_shape=source.image_shape,
        normalisation=normalisation,
        where=str(file),
    )
    return Read(imported, stored, digest, normalisation)


def _check_layout(layout: str) -> None:
    if layout not in (*LAYOUTS, "auto"):
        raise SettingError("--layout", layout, ", ".join(LAYOUTS) + " or auto")


def _check_architecture(architecture: str | None) -> None:
    if architecture is not None and architecture not in ARCHITECTURES:
        raise SettingError("--architecture", architecture, "one of " + ", ".join(ARCHITECTURES))


def _normalisation(settings: Settings, example: Source) -> dict[str, Any] | None:
    """What a network does to its input before its first layer; None if it is the user's own and does not say."""
    made: Any = settings.model_options
    if is_import_path(settings.model):
        options = {"num_classes": example.num_classes, "conv": "plain", "axis_name": None, "mean": None, "std": None}
        made = import_object("--model", settings.model)(**options | keywords_of(made))
        if not (hasattr(made, "mean") and hasattr(made, "std")):
            return None
    channels = example.image_shape[-1]
    mean, std = ([value] * channels if given is None else list(given) for given, value in ((made.mean, 0.0), (made.std, 1.0)))
    return {"where": "inside the network: (pixel - mean) / std per channel, before the first layer", "mean": mean, "std": std}


def _shapes_of(settings: Settings, example: Source) -> tuple[Params, ModelState, dict[str, Any] | None]:
    """Shapes of parameters and model state, and the settings of BatchNorm as its layers have them; None where none is seen.

    The initialisation is traced, not run; a network of NNX or of plain functions shows no layers.
    """
    seen: list[nn.BatchNorm] = []

    def look(function: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm):
            seen.append(context.module)
        return function(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *example.image_shape), np.float32)
    with nn.intercept_methods(look):
        params, model_state = jax.eval_shape(network_of(settings, example.num_classes).init, jax.random.key(0), images)
    if not seen:
        return params, model_state, None
    epsilons, momenta = ({getattr(layer, name) for layer in seen} for name in ("epsilon", "momentum"))
    found = {
        "epsilon": _only(epsilons),
        "momentum": _only({round(1 - momentum, 6) for momentum in momenta}),  # as PyTorch counts it: the weight of the new
        "running_var": "of the biased variances; PyTorch, training on, would average the unbiased",
    }
    return params, model_state, found


def _only(values: set[float]) -> float | list[float]:
    return next(iter(values)) if len(values) == 1 else sorted(values)


def _check_card(
    card: Mapping[str, Any],
    file: Path,
    settings: Settings,
    example: Source,
    normalisation: Mapping[str, Any] | None,
    batch_norm: Mapping[str, Any] | None,
) -> None:
    """Refuses the first field in which the card in a file and the network here differ."""
    found = differences(
        card,
        num_classes=example.num_classes,
        image_shape=example.image_shape,
        bounds=example.bounds,
        normalisation=normalisation,
        batch_norm=batch_norm,
    )
    if not found:
        return
    first = found[0]
    said = f"the card of {file} says {first.field} {_plain(first.theirs)}, here it is {_plain(first.ours)}"
    size = _size_of(first)
    if size is not None and settings.data != "digits" and not is_import_path(settings.data):
        raise SettingError("--image-size", settings.image_size, f"{size}: {said}")
    if first.field.startswith("normalisation") and not is_import_path(settings.model):
        name = first.field.rpartition(".")[2]
        raise SettingError(f"--model.{name}", first.ours, f"{_plain(first.theirs)}, as the network was trained: {said}")
    if first.field.startswith(("normalisation", "batch_norm")):
        raise SettingError("--model", settings.model, f"the network that was exported: {said}")
    raise SettingError("--data", settings.data, f"the data that the network was made for: {said}")


def _size_of(difference: Difference) -> int | None:
    """The number of pixels that would mend a difference, if only the size of a square picture is another."""
    theirs, ours = difference.theirs, difference.ours
    if difference.field != "input.shape" or not isinstance(theirs, list) or len(theirs) != 3 or len(ours) != 3:
        return None
    other = sorted(theirs[place] for place in range(3) if theirs[place] != ours[place] and type(theirs[place]) is int)
    return other[0] if len(other) == 2 and other[0] == other[1] else None


def _plain(value: Any) -> str:
    text = json_text(value)
    return text if len(text) < 80 else text[:77] + "..."


def _taken_over(stored: Stored, settings: Settings, example: Source, layout: str) -> dict[str, tuple[float, ...]]:
    """The mean and the std that a file says its network normalises by, as options of the network, unless it was told some."""
    names = ("mean", "std")
    options = settings.model_options.values()
    if is_import_path(settings.model):
        options = dict.fromkeys(parameters_of("model", import_object("--model", settings.model))) | options
    if not set(names) <= options.keys() or any(options[name] is not None for name in names):
        return {}
    channels, said = example.image_shape[-1], stored.about.get("normalisation")
    found: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    if not found and (layout if layout != "auto" else layout_of(tuple(stored.tensors))) == "torch":
        found = normalisation_in(stored.tensors, channels).settings
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    given = {name: found[name] for name in names if found.get(name) is not None and tuple(found[name]) != plain[name]}
    return {f"model.{name}": parse_numbers(f"{name} of the file", value) for name, value in given.items()}


def _notes_on_taken(taken: Mapping[str, tuple[float, ...]]) -> list[str]:
    said = " and ".join(f"--{name} {format_value(value)}" for name, value in taken.items())
    return [f"the file normalises its images, and so does the network here: {said}, taken from it"] if taken else []


def _notes_on_file(stored: Stored, normalisation: Mapping[str, Any] | None) -> list[str]:
    notes = []
    if stored.others:
        where = f"under {stored.key!r}" if stored.key else "as the whole of the file"
        notes.append(f"the weights are those {where}; others stand under {', '.join(map(repr, stored.others))}: --key takes them")
    if normalisation is None and stored.about.get("normalisation") is not None:
        told = _plain(stored.about["normalisation"])
        notes.append(f"the card's normalisation, {told}, could not be compared: the model does not say what it does")
    return notes


def _notes_on_zeros(imported: Imported) -> list[str]:
    """A word on kept weights that are zero: a pruned network whose file has no masks."""
    kept = zeros = 0
    for leaf, mask in zip(jax.tree.leaves(imported.params), jax.tree.leaves(imported.masks), strict=True):
        if np.ndim(mask):
            kept, zeros = kept + int(mask.sum()), zeros + int(np.sum(mask & (leaf == 0)))
    if zeros < _NOTABLE_ZEROS * kept or not zeros:
        return []
    return [f"{100 * zeros / kept:.1f} % of the weights that count as kept are zero; --masks nonzero counts them as pruned"]


def _provenance(run: Path, settings: Settings, step: int, about: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in settings.as_dict().items() if name != "data_dir"}  # a place on this machine
    path = Path(run) / "versions.json"
    trained_with = read_json(path) if path.exists() else None
    return {
        "model": settings.model,
        "data": settings.data,
        "seed": settings.seed,
        "step": step,
        "finished": bool(about.get("finished")),
        "settings": told,
        "versions": {"trained_with": trained_with, "exported_with": versions()},
    }


def _stored_masks(file: Path, digest: str) -> dict[str, np.ndarray] | None:
    """The masks beside a file of weights, if there are any."""
    path = files_of(file).masks
    if file.suffix != FILE.suffix or not path.exists():
        return None
    masks, about = read_tensors(path)
    if about.get(_MASKS_OF) != digest:
        expected = f"the masks of {file.name}; these belong to other weights: remove them, or give --masks nonzero"
        raise SettingError("FILE", str(path), expected)
    return masks


def _all_kept(masks: Any) -> bool:
    return all(bool(np.all(mask)) for mask in jax.tree.leaves(masks))
