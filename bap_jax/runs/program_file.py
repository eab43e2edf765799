"""A run's network as a program that runs without this library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from bap_jax.atomic import json_text, write_atomic
from bap_jax.errors import SettingError
from bap_jax.export import SUFFIX, export_network, write_program
from bap_jax.mathematics.masks import leaf_paths
from bap_jax.runs.datasets import example_of
from bap_jax.runs.recipe import network_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.trust import NOTHING, Trust
from bap_jax.runs.weights import card_of, make_folder
from bap_jax.types import Array, Model, ModelState, Params

PROGRAM = Path("export") / "model.stablehlo"  # in a run folder
PLACES = ("inside", "beside")


def export_program(
    run: Path,
    *,
    out: Path | None = None,
    weights: str = "inside",
    gradients: bool = False,
    checkpoint: str = "last",
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Writes a run's network as StableHLO, with plain convolutions, for batches of any size, for CPU, GPU (CUDA) and TPU.

    Args:
      run: a run folder.
      out: the file of the program; by default ``export/model.stablehlo`` in the run folder. The card goes to ``OUT.json``.
      weights: ``inside`` the program, or ``beside`` it, in ``OUT.npz``.
      gradients: with the derivative: see :func:`bap_jax.export.write_program`.
      checkpoint: ``last``, ``best``, ``ema`` or a step.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the images' shape.
      trust: which code the run's configuration may name.

    Returns:
      The files, and the card.

    Raises:
      SettingError: a run or checkpoint that is not there, a file that cannot be written, or flatbuffers is not installed.
      CheckpointError: the checkpoint is not of the run's model.
    """
    if weights not in PLACES:
        raise SettingError("--weights", weights, " or ".join(PLACES))
    path = Path(run) / PROGRAM if out is None else Path(out)
    if path.suffix != SUFFIX or path.is_dir():
        raise SettingError("--out", str(path), f"a file name that ends in {SUFFIX}")
    stored = stored_network(run, checkpoint, trust)
    example = example_of(stored.settings, data_dir)
    network = stored.on(example).network
    make_folder(path)
    predict, named = by_name(network_of(stored.settings, example.num_classes, conv="plain"), network.params, network.model_state)
    written = write_program(path, predict, named, example.image_shape, inside=weights == "inside", gradients=gradients)
    exported = export_network(*network, layout="jax")
    card = card_of(run, stored, exported, example, layout="jax", architecture=stored.settings.model)
    card |= {"format": "bap_jax program", "weights_are": weights, "gradients": gradients}
    card["sha256"] = {which: digest for which, (_, digest) in written.items()}
    files = {which: file for which, (file, _) in written.items()} | {"card": path.with_name(path.name + ".json")}
    write_atomic(files["card"], json_text(card, indent=1) + "\n")
    return files, card


def by_name(model: Model, params: Params, model_state: ModelState) -> tuple[Any, dict[str, Any]]:
    """A network as a function of weights by name.

    Returns:
      ``(weights, images) -> logits``, and the weights: ``params.block1.conv1.kernel``, ….

    Example:
      >>> import jax.numpy as jnp
      >>> from bap_jax.models import from_function
      >>> model = from_function(lambda key, x: {"w": jnp.ones((4, 2))}, lambda params, x: x @ params["w"])
      >>> predict, weights = by_name(model, {"w": jnp.ones((4, 2))}, {})
      >>> list(weights), predict(weights, jnp.ones((1, 4))).tolist()
      (['params.w'], [[4.0, 4.0]])
    """
    tree = {"params": params, "model_state": model_state}
    names = [path.replace("/", ".") for path in leaf_paths(tree)]
    structure = jax.tree.structure(tree)

    def predict(weights: Mapping[str, Array], images: Array) -> Array:
        found = jax.tree.unflatten(structure, [weights[name] for name in names])
        return model.apply(found["params"], found["model_state"], images, train=False)[0].logits

    return predict, dict(zip(names, jax.tree.leaves(tree), strict=True))
