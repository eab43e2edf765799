"""A run read again: its settings, and the network of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bap_jax.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    DamagedCheckpoint,
    Network,
    check_layout,
    describe,
    read_config,
)
from bap_jax.checkpoint.run_folder import CONFIG
from bap_jax.data import Source
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.models import as_model, fast_model
from bap_jax.runs import zoo
from bap_jax.runs.datasets import example_of, split_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.network_file import load_file
from bap_jax.runs.plan import AVERAGE
from bap_jax.runs.recipe import model_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_in
from bap_jax.runs.trust import CODE, NETWORK, NOTHING, Trust, check_trust
from bap_jax.types import Model

OBJECTS = "objects"  # where a configuration says what can be said of a run that was made of objects


def settings_of(run: Path, trust: Trust = NOTHING, *, uses: Collection[str] = CODE) -> Settings:
    """The settings of the run in a folder. Whatever makes an import of a stored name has the name from here.

    Args:
      run: the folder.
      trust: which names of code in it may be imported, besides what is remembered of this folder.
      uses: the settings of which something is going to be imported.

    Raises:
      SettingError: no run is there, its configuration is damaged, it was written by a version with other settings, or it names
        code that is not trusted.
    """
    if OBJECTS in read_config(run):  # which says what a run folder is
        expected = "a run that names what it is made of; this one was made of objects, by bap.runs.fit: bap.load(run, model=...)"
        raise SettingError("run folder", str(run), expected)
    settings = settings_in(Path(run) / CONFIG)
    check_trust(settings.as_dict(), run, trust, uses)
    return settings


def restore_checkpoint(run: str | Path, which: str) -> tuple[Network, int, dict[str, Any]]:
    """The network of a run, the step it was saved at, and what is known about it.

    Args:
      run: the run's folder.
      which: ``last``, ``best``, a step, or ``ema``: the averaged weights of the last.

    Raises:
      SettingError: the run has no such checkpoint.
      CheckpointError: it is damaged; another one that is whole is named.
    """
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        raise SettingError("--checkpoint", which, f"a checkpoint of {run}; it has none yet")
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = {"last": checkpoints.latest_step, AVERAGE: checkpoints.latest_step, "best": checkpoints.best_step}.get(
            which, lambda: int(which)
        )()
        if step is None:
            what = "no validated checkpoint yet, which the best one is chosen from" if checkpoints.steps() else "none yet"
            raise SettingError("--checkpoint", which, f"a checkpoint of {run}; it has {what}")
        if step not in checkpoints.steps():
            raise SettingError("--checkpoint", which, f"one of {checkpoints.steps()}, last, best or ema")
        item = "average" if which == AVERAGE else "network"
        try:
            return checkpoints.restore_network(step, item=item), step, _about(checkpoints, step, which)
        except DamagedCheckpoint as error:
            raise CheckpointError(str(error) + (f": --checkpoint {error.whole}" if error.whole is not None else "")) from error


def _about(checkpoints: Checkpoints, step: int, which: str) -> dict[str, Any]:
    """What is known about a checkpoint; of its averaged weights no metric is, for they were not validated."""
    return checkpoints.metadata(step) | ({"metric": None} if which == AVERAGE else {})


class Stored(NamedTuple):
    """A checkpoint's network with the settings of its run, before it is known whether it fits their model."""

    run: Path
    settings: Settings
    network: Network
    step: int
    about: dict[str, Any]

    def on(self, source: Source) -> Deployed:
        """The network as a function of images like those of ``source``.

        Raises:
          CheckpointError: it is the network of another model, or of other data; the first leaf that differs is named.
        """
        model = model_of(self.settings, source.num_classes)
        where = f"the checkpoint of step {self.step} in {self.run}"
        return Deployed(model, fitted(self.network, model, source.image_shape, where), source.image_shape)


def stored_network(run: str | Path, which: str = "last", trust: Trust = NOTHING, *, uses: Collection[str] = NETWORK) -> Stored:
    """What a run folder holds of a checkpoint: see :func:`settings_of` and :func:`restore_checkpoint`, whose arguments and
    errors these are.
    """
    return Stored(Path(run), settings_of(Path(run), trust, uses=uses), *restore_checkpoint(run, which))


def load(
    run: str | Path,
    checkpoint: str = "last",
    *,
    model: Any = None,
    data_dir: str | None = None,
    trust: Trust = NOTHING,
) -> Deployed:
    """A run's network as a function, rebuilt from the run's configuration; imported runs are runs, too.

    Args:
      run: the run's folder; or a file of ``bap export --format packed``, ``int8`` or ``stablehlo``, which holds one network; or,
        where no such folder or file is, the name of a network of the zoo (:mod:`bap_jax.runs.zoo`).
      checkpoint: ``last``, ``best`` (on validation data), a step, or ``ema``: the averaged weights of the last.
      model: what the network is, as :func:`bap_jax.runs.fit` took it; a run that it made needs it, for no configuration names a
        user's own objects.
      data_dir: where prepared data sets are, if not where the run found them; one example is read, for the shape of the images.
      trust: which code the run's configuration may name, besides what is remembered of this folder.

    Returns:
      The network: ``net(images)`` are logits, ``net.evaluate(epsilon=8 / 255)`` attacks it. ``net.about``
      holds ``run``, ``step``, ``metric``, ``finished``, ``phase``, ….

    Raises:
      SettingError: no run is there, it has no such checkpoint, or it names code that is not trusted; a file that is not whole.
      CheckpointError: the checkpoint is damaged, or not of the run's model.

    Example:
      >>> import bap_jax as bap
      >>> net = bap.load("runs/x", checkpoint="best")  # doctest: +SKIP
      >>> net(images), net.evaluate(attacks="pgd", epsilon=0.1).robust_accuracy  # doctest: +SKIP
    """
    if not Path(run).exists() and str(run) in zoo.names():
        for name, value, default in (("checkpoint", checkpoint, "last"), ("model", model, None)):
            if value != default:
                raise SettingError(name, value, f"nothing: {run} is a network of the zoo, which is one network and names it")
        return zoo.load(str(run), data_dir=data_dir)
    if Path(run).is_file():
        for name, value, default in (("checkpoint", checkpoint, "last"), ("model", model, None)):
            if value != default:
                raise SettingError(name, value, f"nothing: {run} is a file, which holds one network and names it")
        return load_file(run, data_dir=data_dir, trust=trust)
    config = read_config(run)
    if OBJECTS in config:
        return _of_objects(run, str(checkpoint), model, config[OBJECTS])
    if model is not None:
        raise SettingError("model", type(model).__name__, f"none: the configuration of {run} names it")
    stored = stored_network(run, str(checkpoint), trust)
    example = example_of(stored.settings, data_dir)
    net = stored.on(example)
    about = stored.about | {"run": str(run), "step": stored.step, "model": stored.settings.model, "data": stored.settings.data}
    return Deployed(net.model, net.network, example.image_shape, about, lambda split: split_of(stored.settings, split, data_dir))


def _of_objects(run: str | Path, checkpoint: str, model: Any, described: dict[str, Any]) -> Deployed:
    if model is None:
        raise SettingError("model", None, f"the network of {run}, as bap.runs.fit was given it: its configuration names none")
    made, shape = fast_model(as_model(model)), tuple(described["data"]["image_shape"])
    network, step, about = restore_checkpoint(run, checkpoint)
    network = fitted(network, made, shape, f"the checkpoint of step {step} in {run}")
    return Deployed(made, network, shape, about | {"run": str(run), "data": described["data"]["name"]})


def fitted(network: Network, model: Model, image_shape: tuple[int, ...], where: str) -> Network:
    """The network in the structure that its model works with.

    Args:
      network: as it was saved, lists and tuples having become dicts.
      model: the model.
      image_shape: of one image.
      where: what the network is, for errors.

    Raises:
      CheckpointError: it is the network of another model, or of other data; the first leaf that differs is named.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jax.numpy.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    wanted, stored = ({"params": p, "model_state": s} for p, s in ((params, model_state), (network.params, network.model_state)))
    check_layout(describe(stored), describe(wanted), where)
    leaves = dict(zip(describe(stored), jax.tree.leaves(stored), strict=True))
    found = jax.tree.unflatten(jax.tree.structure(wanted), [leaves[path] for path in describe(wanted)])
    return network._replace(**found)
