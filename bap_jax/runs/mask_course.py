"""How far the masks of a run move: while it trains, from epoch to epoch; afterwards, from one checkpoint to the next."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bap_jax.checkpoint import CHECKPOINTS, Checkpoints
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import mask_distance
from bap_jax.types import PyTree

LAST_TENTH = 0.9  # of a run's steps: where its last tenth begins
_EPOCH, _LATE = "epoch_masks", "late_masks"  # in what a checkpoint says of itself


class MaskCourse:
    """Follows the masks of a phase: how far they moved over each epoch, and over the last tenth of the run.

    Args:
      first: the step of the run that the phase begins at.
      steps_per_epoch: of the training data.
      num_steps: of the run.
    """

    def __init__(self, first: int, steps_per_epoch: int, num_steps: int):
        self._first, self._epoch_length, self._late_from = first, steps_per_epoch, LAST_TENTH * num_steps
        self._epoch: PyTree | None = None  # at the end of the last epoch
        self._late: PyTree | None = None  # where the last tenth begins

    def begin(self, step: int, masks: PyTree, about: Mapping[str, Any]) -> None:
        """Begins at a step, with what the checkpoint that it goes on from says of itself."""
        self._epoch = _copied(masks) if self._ends_epoch(step) else unpacked(about.get(_EPOCH), masks)
        self._late = unpacked(about[_LATE], masks) if _LATE in about else self._epoch

    def after(self, step: int, masks: PyTree) -> dict[str, float]:
        """What is found after a step: ``mask_distance``, at the end of an epoch."""
        if not self._ends_epoch(step):
            return {}
        found = {} if self._epoch is None else {"mask_distance": float(_distance(self._epoch, masks))}
        self._epoch = _copied(masks)
        if step <= self._late_from:
            self._late = self._epoch
        return found

    def last(self, masks: PyTree) -> dict[str, float]:
        """What is found after the run's last step: ``late_mask_distance``, from the end of an epoch at nine tenths or before."""
        return {} if self._late is None else {"late_mask_distance": float(_distance(self._late, masks))}

    def about(self, step: int) -> dict[str, str]:
        """What a checkpoint has to say for this to go on from it as if nothing had happened."""
        found = {}
        if self._epoch is not None and not self._ends_epoch(step):
            found[_EPOCH] = packed(self._epoch)
        if self._late is not None and self._late is not self._epoch:
            found[_LATE] = packed(self._late)
        return found

    def _ends_epoch(self, step: int) -> bool:
        return (step - self._first) % self._epoch_length == 0


_distance = jax.jit(mask_distance)


def _copied(masks: PyTree) -> PyTree:
    """The step is given its state's own arrays."""
    return jax.tree.map(jnp.copy, masks)


def packed(masks: PyTree) -> str:
    """Masks as text: a bit each, compressed.

    >>> masks = {"w": np.array([[True, False], [True, True]]), "b": np.bool_(True)}
    >>> jax.tree.map(lambda mask: mask.tolist(), unpacked(packed(masks), masks))
    {'b': True, 'w': [[True, False], [True, True]]}
    """
    bits = np.concatenate([np.ravel(_on_the_host(mask)) for mask in jax.tree.leaves(masks)])
    return base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode("ascii")


def _on_the_host(mask: Any) -> np.ndarray:
    if isinstance(mask, jax.Array) and not (mask.is_fully_addressable or mask.is_fully_replicated):
        return multihost_utils.process_allgather(mask, tiled=True)
    return np.asarray(mask)


def unpacked(text: str | None, like: PyTree) -> PyTree | None:
    """Masks of a text, shaped like others; None of none."""
    if text is None:
        return None
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)).astype(bool)
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = np.split(bits[: ends[-1]], ends[:-1])
    return jax.tree.unflatten(treedef, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


class MaskDistance(NamedTuple):
    """Between two checkpoints of a run."""

    step: int
    later: int
    share: float  # of the prunable entries


def mask_distances(run: str | Path) -> list[MaskDistance]:
    """The mask distance between every two successive checkpoints of a run. Which there are is the run's to say: ``--keep`` of
    the newest, one an epoch or every five seconds, whichever comes later, and the best.

    Args:
      run: its folder.

    Returns:
      In the order of steps; empty with one checkpoint.

    Raises:
      SettingError: there is no checkpoint.
      DamagedCheckpoint: one is damaged.
    """
    with _checkpoints(run) as checkpoints:
        found, before = [], None
        for later in sorted(checkpoints.steps()):
            masks = checkpoints.restore_network(later).masks
            if before is not None:
                found.append(MaskDistance(before[0], later, float(mask_distance(before[1], masks))))
            before = later, masks
        return found


def late_mask_distance(run: str | Path) -> MaskDistance | None:
    """The mask distance over the last tenth of a run: from its last checkpoint at nine tenths of its steps or before, to the
    newest. None where the checkpoint at which it begins lies before eight tenths, so that it would be about more.

    Args, Raises: as :func:`mask_distances`.
    """
    with _checkpoints(run) as checkpoints:
        steps = sorted(checkpoints.steps())
        begin = max((step for step in steps[:-1] if step <= 0.9 * steps[-1]), default=None)
        if begin is None or begin < 0.8 * steps[-1]:
            return None
        masks = [checkpoints.restore_network(step).masks for step in (begin, steps[-1])]
        return MaskDistance(begin, steps[-1], float(mask_distance(*masks)))


def _checkpoints(run: str | Path) -> Checkpoints:
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        raise SettingError("run", str(run), "a run folder with checkpoints")
    return Checkpoints(folder, read_only=True)
