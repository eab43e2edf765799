"""How far the masks of a run moved, from one checkpoint that it kept to the next."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bap_jax.checkpoint import CHECKPOINTS, Checkpoints
from bap_jax.errors import SettingError
from bap_jax.mathematics.masks import mask_distance


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
