"""A network in one file, read again: what it is made of stands in the file, so that no run folder and no data are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bap_jax.atomic import json_text
from bap_jax.checkpoint import Network, read_json
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import SUFFIX, import_network, is_packed, read_packed, read_program, unrounded
from bap_jax.runs.datasets import split_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.migrations import migrated
from bap_jax.runs.recipe import model_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_from
from bap_jax.runs.trust import NETWORK, NOTHING, Trust, check_trust
from bap_jax.types import Model, Outputs

NOT_OURS = "a file of bap export, which says what its network is made of"


def load_file(file: str | Path, *, data_dir: str | None = None, trust: Trust = NOTHING) -> Deployed:
    """The network in a file of ``bap export --format packed``, ``int8`` or ``stablehlo``, as a function of images.

    That of a program (``stablehlo``) has no weights but those beside it, under their names, and no masks; gradient attacks need
    one that was written with ``--gradients``.

    Args:
      file: the file; a program's card, ``FILE.json``, has to be beside it.
      data_dir: where prepared data sets are; they are read when the network is evaluated, not before.
      trust: which code the file's settings may name.

    Returns:
      The network, as :func:`bap_jax.load` gives it.

    Raises:
      SettingError: there is no such file, it is not whole, it was altered or holds something else, or it names code that is not
        trusted.
      CheckpointError: its tensors are not those of the network that it names.
    """
    if Path(file).suffix == SUFFIX:
        return _of_program(Path(file), data_dir, trust)
    if not is_packed(file):
        kinds = (
            "a run folder, or a file of bap export --format packed, int8 or stablehlo; bap import makes a run of other weights"
        )
        raise SettingError("file", str(file), kinds if Path(file).exists() else f"{kinds}; there is no such file")
    tensors, card = read_packed(file)
    if not isinstance(card.get("prunable"), list):
        raise SettingError("file", str(file), NOT_OURS)
    settings = _settings_in(card, file)
    check_trust(settings.as_dict(), Path(file).parent, trust, NETWORK, file=Path(file).name)
    model = model_of(settings, card["num_classes"])
    image_shape = tuple(card["input"]["shape"])
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), np.float32))
    weights, masks = unrounded(tensors, card["prunable"])
    found = import_network(weights, params, model_state, masks=masks, layout="jax", where=str(file))
    network = Network(found.params, found.masks, found.model_state)
    return Deployed(model, network, image_shape, _about(file, card), lambda split: split_of(settings, split, data_dir))


def _of_program(file: Path, data_dir: str | None, trust: Trust) -> Deployed:
    """The network of a program: nothing of its model's code is needed, only its data's when it is evaluated."""
    card = read_json(file.with_name(file.name + ".json")) if file.is_file() else {}
    digests = card.get("sha256")
    if not isinstance(digests, dict):
        raise SettingError("file", str(file), f"a program of bap export with its card {file.name}.json beside it")
    program = read_program(file, digests)
    settings = _settings_in(card, file)
    check_trust(settings.as_dict(), file.parent, trust, ("data",), file=file.name)

    def init(*_: Any) -> Any:
        raise SettingError("model", str(file), "a network whose code is known: a program is not trained")

    def apply(params: Any, model_state: Any, images: Any, *, train: bool, key: Any = None) -> tuple[Outputs, Any]:
        if train:
            init()
        return Outputs(program.call(params, images), {}), model_state

    network = Network(program.weights, {name: np.array(True) for name in program.weights}, {})
    model = Model(init, apply)
    return Deployed(model, network, program.image_shape, _about(file, card), lambda split: split_of(settings, split, data_dir))


def _about(file: str | Path, card: Mapping[str, Any]) -> dict[str, Any]:
    known = ("step", "finished", "model", "data", "seed", "weight_bits", "dtype", "gradients")
    return {"file": str(file)} | {name: card[name] for name in known if name in card}


def _settings_in(card: Mapping[str, Any], file: str | Path) -> Settings:
    """The settings that a file's card holds.

    Raises:
      SettingError: it has none, or not what a network is rebuilt from.
    """
    told = card.get("input")
    shape = told.get("shape") if isinstance(told, dict) else None
    if not isinstance(card.get("settings"), dict) or not isinstance(shape, list) or type(card.get("num_classes")) is not int:
        raise SettingError("file", str(file), NOT_OURS)
    try:
        return settings_from(migrated(json.loads(json_text(card["settings"]))), f", in {file}")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: its settings cannot be read ({error})") from None
