"""Runs that an earlier version began: what settings that they lack meant then, and state that they did not carry."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.budgets import CutoffScaleState
from bap_jax.checkpoint import Checkpoints, as_target, read_config
from bap_jax.runs.settings import Settings
from bap_jax.training import TrainState


class Added(NamedTuple):
    """Settings that came later: the runs that they matter to, and what such a run did before it could be told."""

    matters_to: Mapping[str, Any]
    then: Mapping[str, Any]


ADDED = (
    Added({}, {"init_from": None, "init_checkpoint": "last", "init_masks": "keep", "init_digest": None}),  # all had new weights
    Added(
        {"budget": "cutoff-scale", "search": "pgd"},
        {"path": "ray", "halving": "linear", "wrong": "zero", "cutoff_over": "all"},
    ),
    Added(
        {},  # every run: Adam or SGD at a constant rate
        {
            "momentum": 0.9,
            "nesterov": False,
            "gradient_clip": None,
            "rate_schedule": "constant",
            "rate_warmup": None,
            "rate_boundaries": "1/2,3/4",
            "rate_factors": "0.1",
            "rate_cycles": 1,
            "ema": 0.0,
        },
    ),
)


def migrated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that it lacks, each with the meaning it had when the run was trained; today's
    default where it does not matter to the run.

    >>> migrated({"budget": "cutoff-scale", "search": "pgd", "halving": "log"})["halving"]
    'log'
    >>> [migrated({"budget": budget, "search": "pgd"})["path"] for budget in ("cutoff-scale", "uniform")]
    ['ray', 'ball']
    """
    found, default = dict(config), Settings()
    for matters_to, then in ADDED:
        if not matters_to.keys() <= config.keys():
            continue  # not the configuration of a training run
        matters = all(config.get(name) == value for name, value in matters_to.items())
        for name, value in then.items():
            found.setdefault(name, value if matters else getattr(default, name))
    return found


def config_of(run: str | Path) -> dict[str, Any]:
    """The configuration of the run in a folder, as :func:`migrated` reads it.

    Raises:
      SettingError: the folder holds no run.
    """
    return migrated(read_config(run))


def restored(checkpoints: Checkpoints, state: TrainState, step: int) -> TrainState:
    """The state saved at a step; what the blind budget's did not carry yet, the settings say, so it stays as it is in ``state``.

    Raises:
      CheckpointError: it does not fit.
    """
    budget, saved = state.budget, checkpoints.leaves(step)
    if not isinstance(budget, CutoffScaleState) or "budget/wrong" in saved:
        return checkpoints.restore(as_target(state), step)
    fields = {name: value for name, value in budget._asdict().items() if name != "wrong"}
    earlier = namedtuple("earlier", fields)(**fields)  # type: ignore[misc]
    found = checkpoints.restore(as_target(state._replace(budget=earlier)), step)
    return found._replace(budget=CutoffScaleState(**found.budget._asdict(), wrong=budget.wrong))
