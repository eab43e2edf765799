"""The model card: what a reader of the weights has to know, in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bap_jax.export.network import Exported
from bap_jax.export.torch_names import Entry
from bap_jax.types import Bounds

VERSION = 1
_KINDS = {
    "same": "as here",
    "conv": "[height, width, in, out] here, [out, in, height, width] in the file",
    "dense": "[in, out] here, [out, in] in the file",
    "flattened": "[height x width x channels, out] here, [out, channels x height x width] in the file",
}


def model_card(
    exported: Exported,
    *,
    layout: str,
    architecture: str,
    num_classes: int,
    image_shape: tuple[int, ...],
    bounds: Bounds,
    normalisation: Mapping[str, Any] | None,
    batch_norm: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Describes exported weights.

    Args:
      exported: the tensors.
      layout: that of the tensors; with it go the axes of the images, NCHW or NHWC.
      architecture: the network's name.
      num_classes: K.
      image_shape: of one image here, [H, W, C] for pictures.
      bounds: of the images, as the network is given them.
      normalisation: what the network itself does to its input, or None if that is not known.
      batch_norm: settings of BatchNorm, or None where there is none, or none known.
      about: whatever else is to stand in the card: data, seed, step, versions.

    Returns:
      JSON values; see ``docs/weights.md`` for their meaning.

    Example:
      >>> from bap_jax.export import export_network
      >>> params, masks = {"w": np.ones((2, 2))}, {"w": np.array([[True, False], [True, True]])}
      >>> exported = export_network(params, masks, {}, layout="jax")
      >>> card = model_card(
      ...     exported, layout="jax", architecture="linear", num_classes=2, image_shape=(1, 1, 2), bounds=Bounds(),
      ...     normalisation=None, batch_norm=None, about={"seed": 0})
      >>> card["input"], card["weights"]["nonzero"], card["weights"]["sparsity"]
      ({'axes': 'NHWC', 'shape': [1, 1, 2], 'bounds': [0.0, 1.0]}, 3, 0.25)
    """
    own = [exported.tensors[entry.name] for entry in exported.entries if entry.path.startswith("params/")]
    prunable = sum(mask.size for mask in exported.masks.values())
    kept = sum(int(np.count_nonzero(mask)) for mask in exported.masks.values())
    return {
        "format": "bap_jax network",
        "format_version": VERSION,
        "architecture": architecture,
        "layout": layout,
        "num_classes": num_classes,
        "input": _input(image_shape, bounds, channels_first=layout == "torch"),
        "output": "logits [N, num_classes]",
        "normalisation": None if normalisation is None else dict(normalisation),
        "batch_norm": None if batch_norm is None else dict(batch_norm),
        "weights": {
            "parameters": sum(tensor.size for tensor in own),
            "nonzero": sum(int(np.count_nonzero(tensor)) for tensor in own),
            "prunable": prunable,
            "kept": kept,
            "sparsity": (prunable - kept) / max(prunable, 1),
        },
        **about,
        "tensors": [_described(entry, exported) for entry in exported.entries],
    }


class Difference(NamedTuple):
    """A field in which a card and a network differ."""

    field: str  # "input.shape"
    theirs: Any  # what the card says
    ours: Any


def differences(
    card: Mapping[str, Any],
    *,
    num_classes: int,
    image_shape: tuple[int, ...],
    bounds: Bounds,
    normalisation: Mapping[str, Any] | None,
    batch_norm: Mapping[str, Any] | None,
) -> tuple[Difference, ...]:
    """What of a network here is not as a model card says, field by field: whatever changes a prediction.

    A field that the card does not have, or that is not known here (None), is not compared.

    Args:
      card: JSON values from a file, of any form.
      num_classes, image_shape, bounds, normalisation, batch_norm: of the network here, as for :func:`model_card`.

    Returns:
      The differences, in the order of the card.

    Example:
      >>> here = {"num_classes": 10, "image_shape": (32, 32, 3), "bounds": Bounds(), "normalisation": None, "batch_norm": None}
      >>> differences({"num_classes": 10, "input": {"axes": "NCHW", "shape": [3, 24, 24]}}, **here)
      (Difference(field='input.shape', theirs=[3, 24, 24], ours=[3, 32, 32]),)
    """
    stored = card.get("input")
    first = isinstance(stored, Mapping) and stored.get("axes") == "NCHW"
    here: dict[str, Mapping[str, Any] | None] = {
        "": {"num_classes": num_classes},
        "input": {name: value for name, value in _input(image_shape, bounds, channels_first=first).items() if name != "axes"},
        "normalisation": normalisation and {name: normalisation[name] for name in ("mean", "std")},
        "batch_norm": batch_norm and {"epsilon": batch_norm["epsilon"]},  # the momentum is of training
    }
    found = []
    for part, fields in here.items():
        given = card.get(part) if part else card
        if given is None or fields is None:
            continue
        if not isinstance(given, Mapping):
            found.append(Difference(part, given, dict(fields)))
            continue
        for name, ours in fields.items():
            theirs = given.get(name)
            if theirs is not None and not _equal(theirs, ours):
                found.append(Difference(f"{part}.{name}".lstrip("."), theirs, ours))
    return tuple(found)


def _equal(theirs: Any, ours: Any) -> bool:
    try:
        theirs, ours = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return theirs.shape == ours.shape and bool(np.allclose(theirs, ours, rtol=1e-6, atol=1e-9))


def _input(image_shape: tuple[int, ...], bounds: Bounds, *, channels_first: bool) -> dict[str, Any]:
    pictures = len(image_shape) == 3
    shape = [image_shape[2], *image_shape[:2]] if channels_first and pictures else list(image_shape)
    axes = ("NCHW" if channels_first else "NHWC") if pictures else "N..."
    return {"axes": axes, "shape": shape, "bounds": [np.asarray(bound).tolist() for bound in bounds]}


def _described(entry: Entry, exported: Exported) -> dict[str, Any]:
    described: dict[str, Any] = {"name": entry.name, "here": entry.path, "shape": list(entry.file_shape)}
    described |= {"dtype": str(exported.tensors[entry.name].dtype), "axes": _KINDS[entry.arranged.kind]}
    if entry.arranged.map_shape:
        described["map"] = dict(zip(("height", "width", "channels"), entry.arranged.map_shape, strict=True))
    return described
