"""A run read again: its settings, the network of a checkpoint, and the function that it computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

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
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.runs.plan import AVERAGE
from bap_jax.runs.recipe import model_of
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_in
from bap_jax.runs.trust import CODE, NOTHING, Trust, check_trust


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
    read_config(run)  # which says what a run folder is
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


@functools.lru_cache
def predictor(model: str, num_classes: int) -> Callable:
    """``((params, model_state), images) -> logits``; the same object for the same model, so that checkpoints share compiles."""
    apply = model_of(model, num_classes).apply

    def predict(network, images):
        params, model_state = network
        return apply(params, model_state, images, train=False)[0].logits

    return predict


def fit(network: Network, model: str, num_classes: int, image_shape: tuple[int, ...], where: str) -> Network:
    """The network in the structure that its model works with.

    Raises:
      CheckpointError: it is the network of another model, or of other data; the first leaf that differs is named.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jax.numpy.float32)
    params, model_state = jax.eval_shape(model_of(model, num_classes).init, jax.random.key(0), images)
    wanted, stored = ({"params": p, "model_state": s} for p, s in ((params, model_state), (network.params, network.model_state)))
    check_layout(describe(stored), describe(wanted), where)
    leaves = dict(zip(describe(stored), jax.tree.leaves(stored), strict=True))
    fitted = jax.tree.unflatten(jax.tree.structure(wanted), [leaves[path] for path in describe(wanted)])
    return network._replace(**fitted)
