"""A network in one file, read again: what it is made of stands in the file, so that no run folder and no data are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.checkpoint import Network
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import import_network, is_packed, read_packed
from bap_jax.mathematics.quantize import Quantized, dequantize
from bap_jax.runs.datasets import split_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.migrations import migrated
from bap_jax.runs.recipe import model_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_from
from bap_jax.runs.trust import NETWORK, NOTHING, Trust, check_trust

SCALE, ZEROS = "@scale", "@zeros"  # beside a tensor: the scale of its integers; which of its kept weights are zero


def load_file(file: str | Path, *, data_dir: str | None = None, trust: Trust = NOTHING) -> Deployed:
    """The network in a file of ``bap export --format packed`` or ``int8``, as a function of images.

    Args:
      file: the file.
      data_dir: where prepared data sets are; they are read when the network is evaluated, not before.
      trust: which code the file's settings may name.

    Returns:
      The network, as :func:`bap_jax.load` gives it.

    Raises:
      SettingError: there is no such file, it is not whole, it was altered or holds something else, or it names code that is not
        trusted.
      CheckpointError: its tensors are not those of the network that it names.
    """
    if not is_packed(file):
        kinds = "a run folder, or a file of bap export --format packed or int8; bap import makes a run of other weights"
        raise SettingError("file", str(file), kinds if Path(file).exists() else f"{kinds}; there is no such file")
    tensors, card = read_packed(file)
    settings = _settings_in(card, file)
    check_trust(settings.as_dict(), Path(file).parent, trust, NETWORK, file=Path(file).name)
    model = model_of(settings, card["num_classes"])
    image_shape = tuple(card["input"]["shape"])
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), np.float32))
    weights, masks = _unpacked(tensors, card["prunable"])
    found = import_network(weights, params, model_state, masks=masks, layout="jax", where=str(file))
    known = ("step", "finished", "model", "data", "seed", "weight_bits", "dtype")
    about = {"file": str(file)} | {name: card[name] for name in known if name in card}
    network = Network(found.params, found.masks, found.model_state)
    return Deployed(model, network, image_shape, about, lambda split: split_of(settings, split, data_dir))


def _unpacked(tensors: Mapping[str, np.ndarray], prunable: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(weights, masks) by name: integers times their scales, and what is not zero or kept at zero."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith((SCALE, ZEROS))}
    masks = {name: weights[name] != 0 for name in prunable}
    for name in prunable:
        if name + ZEROS in tensors:
            masks[name] |= tensors[name + ZEROS]
        if name + SCALE in tensors:
            weights[name] = np.asarray(dequantize(Quantized(jax.numpy.asarray(weights[name]), tensors[name + SCALE])))
    return weights, masks


def _settings_in(card: Mapping[str, Any], file: str | Path) -> Settings:
    """The settings that a file's card holds.

    Raises:
      SettingError: it has none, or not what a network is rebuilt from.
    """
    shape = card.get("input", {}).get("shape") if isinstance(card.get("input"), dict) else None
    whole = isinstance(card.get("settings"), dict) and isinstance(card.get("prunable"), list) and isinstance(shape, list)
    if not whole or type(card.get("num_classes")) is not int:
        raise SettingError("file", str(file), "a file of bap export, which says what its network is made of")
    try:
        return settings_from(migrated(json.loads(json.dumps(card["settings"]))), f", in {file}")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: its settings cannot be read ({error})") from None
