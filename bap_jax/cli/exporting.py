"""Exporting a run's network to files that others can read, and importing one from such a file as a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bap_jax.atomic import write_atomic
from bap_jax.checkpoint import Checkpoints, Network, check_run, open_run, read_json, versions
from bap_jax.cli.build import model_of
from bap_jax.cli.evaluating import fit, restore_checkpoint, settings_of
from bap_jax.cli.settings import Settings
from bap_jax.data import Source, load_split
from bap_jax.errors import SettingError
from bap_jax.export import ARCHITECTURES, LAYOUTS, export_network, import_network, model_card, read_tensors, write_tensors
from bap_jax.mathematics.masks import measured_sparsity
from bap_jax.models import NETWORKS, count_parameters
from bap_jax.models.layers import batch_norm
from bap_jax.plugins import import_object, is_import_path

FORMATS = ("safetensors",)
FILE = Path("export") / "model.safetensors"  # inside a run folder
IMPORTED = "imported"  # where a run's settings would say how it was trained
RECORD = "import.json"
_MASKS, _MASKS_OF = ".masks.safetensors", "weights_sha256"


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


def files_of(weights: Path) -> Files:
    """The files that belong together: model.safetensors, model.masks.safetensors, model.json."""
    return Files(weights, weights.with_name(weights.stem + _MASKS), weights.with_suffix(".json"))


def export_run(
    run: Path,
    *,
    out: Path | None = None,
    file_format: str = "safetensors",
    layout: str = "auto",
    architecture: str | None = None,
    checkpoint: str = "last",
    data_dir: str | None = None,
) -> tuple[Files, dict[str, Any]]:
    """Writes the weights of a run's network, its masks and its model card. Files of the same names are replaced.

    Args:
      run: a run folder.
      out: the file of the weights; by default ``export/model.safetensors`` in the run folder.
      file_format: ``safetensors``.
      layout: ``torch``, ``jax``, or ``auto``: torch where the architecture's names in PyTorch are known.
      architecture: whose names the layout torch takes; by default, the run's model.
      checkpoint: ``last``, ``best`` or a step.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the images' shape.

    Returns:
      The files, and the card.

    Raises:
      SettingError: a run, checkpoint, format, layout or architecture that is not there, or a file that cannot be written.
      CheckpointError: the checkpoint is not of the run's model.
    """
    if file_format not in FORMATS:
        raise SettingError("--format", file_format, " or ".join(FORMATS))
    _check_layout(layout)
    _check_architecture(architecture)
    files = files_of(Path(run) / FILE if out is None else Path(out))
    if files.weights.suffix != FILE.suffix or files.weights.is_dir():
        raise SettingError("--out", str(files.weights), f"a file name that ends in {FILE.suffix}")
    settings = settings_of(run)
    network, step, about = restore_checkpoint(run, checkpoint)
    example = _example_of(settings, data_dir or settings.data_dir)
    where = f"the checkpoint of step {step} in {run}"
    network = fit(network, settings.model, example.num_classes, example.image_shape, where)
    named = architecture or settings.model
    if layout == "auto":
        layout = "torch" if named in ARCHITECTURES else "jax"
    exported = export_network(*network, layout=layout, architecture=named, image_shape=example.image_shape)
    card = model_card(
        exported,
        layout=layout,
        architecture=named,
        num_classes=example.num_classes,
        image_shape=example.image_shape,
        bounds=example.bounds,
        normalisation=_normalisation(settings.model, example),
        batch_norm=_batch_norm(settings.model, network),
        about=_provenance(run, settings, step, about),
    )
    try:
        files.weights.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("--out", str(files.weights), f"a file in a folder that can be written ({error.strerror})") from error
    weights = write_tensors(files.weights, exported.tensors, card)
    digest = hashlib.sha256(weights).hexdigest()
    masks = write_tensors(files.masks, exported.masks, {_MASKS_OF: digest})
    card["files"] = {
        "weights": {"name": files.weights.name, "bytes": len(weights), "sha256": digest},
        "masks": {"name": files.masks.name, "bytes": len(masks), "sha256": hashlib.sha256(masks).hexdigest()},
    }
    write_atomic(files.card, json.dumps(card, indent=1) + "\n")
    return files, card


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
      masks: ``file``, those beside the file, if any are, and else everything is kept; ``nonzero``, what is not zero is kept.

    Returns:
      What is known about the network.

    Raises:
      SettingError: an unknown name, an occupied folder, a file that is none or not whole, or whose network normalises its input
        otherwise than the model.
      CheckpointError: the first tensor that is missing, unexpected, of another shape or not finite.
    """
    _check_layout(layout)
    _check_architecture(architecture)
    if masks not in ("file", "nonzero"):
        raise SettingError("--masks", masks, "file or nonzero")
    if image_size is not None and image_size < 1:
        raise SettingError("--image-size", image_size, "a whole number of at least 1")
    if not is_import_path(model) and model not in NETWORKS:
        raise SettingError("--model", model, f"one of {', '.join(NETWORKS)} or package.module:factory")
    arm = f"{IMPORTED} {Path(out).name.replace(',', ' ')}"  # two imported networks are two arms of a report
    settings = Settings(
        data=data, data_dir=data_dir, image_size=image_size, model=model, budget=arm, pruner=IMPORTED, final_sparsity=0.0
    )
    check_run(out, settings.as_dict())
    tensors, card = read_tensors(file)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    stored_masks = _stored_masks(Path(file), digest) if masks == "file" else None
    example = _example_of(settings, data_dir)
    normalisation = _normalisation(model, example)
    _check_normalisation(model, normalisation, card, file)
    images = jax.ShapeDtypeStruct((1, *example.image_shape), np.float32)
    params, model_state = jax.eval_shape(model_of(model, example.num_classes).init, jax.random.key(0), images)
    imported = import_network(
        tensors,
        params,
        model_state,
        masks=stored_masks,
        keep=masks,  # type: ignore[arg-type]  # checked above
        layout=None if layout == "auto" else layout,
        architecture=architecture or model,
        image_shape=example.image_shape,
        where=str(file),
    )
    sparsity = float(measured_sparsity(imported.masks))
    settings = Settings(**settings.as_dict() | {"final_sparsity": round(sparsity, 6)})
    record = {"file": Path(file).name, "sha256": digest, "layout": imported.layout, "masks": masks, "card": card}
    with open_run(out, settings.as_dict()) as folder, Checkpoints(folder.checkpoints) as checkpoints:
        network = Network(imported.params, imported.masks, imported.model_state)
        checkpoints.save(0, {"step": np.int32(0)}, network=network, metadata={"finished": True, "phase": 0})
        checkpoints.restore_network()  # nothing is said to be there that cannot be read back
        write_atomic(Path(out) / RECORD, json.dumps(record | {"converted": imported.converted}, indent=1) + "\n")
    from_file = "everything is kept" if _all_kept(imported.masks) else "the file's"
    found = "kept where not zero" if masks == "nonzero" else from_file
    return ImportedRun(
        Path(out), imported.layout, count_parameters(imported.params), sparsity, found, normalisation, imported.converted
    )


def _check_layout(layout: str) -> None:
    if layout not in (*LAYOUTS, "auto"):
        raise SettingError("--layout", layout, ", ".join(LAYOUTS) + " or auto")


def _check_architecture(architecture: str | None) -> None:
    if architecture is not None and architecture not in ARCHITECTURES:
        raise SettingError("--architecture", architecture, "one of " + ", ".join(ARCHITECTURES))


def _example_of(settings: Settings, data_dir: str | None) -> Source:
    """A little of the test data: for the shape of its images, their bounds and the number of classes."""
    return load_split(
        settings.data,
        "test",
        data_dir=data_dir,
        limit=None if is_import_path(settings.data) else 1,
        image_size=settings.image_size,
        train_split=settings.train_split,
        test_split=settings.test_split,
    )


def _normalisation(model: str, example: Source) -> dict[str, Any] | None:
    """What a network does to its input before its first layer; None if it is the user's own and does not say."""
    if is_import_path(model):
        options = {"num_classes": example.num_classes, "conv": "plain", "axis_name": None, "mean": None, "std": None}
        made = import_object("--model", model)(**options)
        if not (hasattr(made, "mean") and hasattr(made, "std")):
            return None
    else:
        made = NETWORKS[model](num_classes=example.num_classes)
    channels = example.image_shape[-1]
    mean, std = ([value] * channels if given is None else list(given) for given, value in ((made.mean, 0.0), (made.std, 1.0)))
    return {"where": "inside the network: (pixel - mean) / std per channel, before the first layer", "mean": mean, "std": std}


def _check_normalisation(model: str, ours: Mapping[str, Any] | None, card: Mapping[str, Any], file: Path) -> None:
    theirs = card.get("normalisation")
    if not (ours and isinstance(theirs, Mapping)):
        return
    for name in ("mean", "std"):
        if not np.allclose(ours[name], theirs.get(name, ours[name])):
            expected = (
                f"a network that normalises its input with {name} {theirs[name]}, as that in {file} does; it has {ours[name]}"
            )
            raise SettingError("--model", model, expected)


def _batch_norm(model: str, network: Network) -> dict[str, Any] | None:
    if not jax.tree.leaves(network.model_state) or is_import_path(model):
        return None
    settings = batch_norm(False, None)
    return {
        "epsilon": settings.epsilon,
        "momentum": round(1 - settings.momentum, 6),  # as PyTorch counts it: the weight of the new
        "running_var": "of the biased variances; PyTorch, training on, would average the unbiased",
    }


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
