"""Runs that an earlier version began: what settings that they lack meant then, and state that they did not carry."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bap_jax.budgets import CutoffScaleState
from bap_jax.checkpoint import Checkpoints, as_target, read_config
from bap_jax.errors import SettingError
from bap_jax.runs.options import radius_options
from bap_jax.runs.parsing import parse_number
from bap_jax.runs.settings import SCHEMA, Settings
from bap_jax.runs.slots import MOVED, SLOTS, old_default
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


# settings of every run that came after schema 3, and what was done before
SINCE_3 = {"microbatches": 1, "attack_chunks": 1, "patience": None}


def migrated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration as this version would have written it: settings that it lacks with the meaning they had when the run
    was trained (today's default where they do not matter to it), options by their dotted names.

    Raises:
      SettingError: a version after this one wrote it.

    Example:
      >>> migrated({"budget": "cutoff-scale", "search": "pgd", "halving": "log"})["budget.halving"]
      'log'
      >>> [migrated({"budget": budget, "search": "pgd"}).get("budget.path") for budget in ("cutoff-scale", "uniform")]
      ['ray', None]
      >>> found = migrated({"schema": 2, "model": "mlp"})
      >>> found["schema"], found["method"], found["phases"], found["model.hidden"]
      (3, None, {}, [256, 128])
    """
    schema = config.get("schema", 1)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise SettingError("schema", schema, f"at most {SCHEMA}: a later version of bap_jax wrote this")
    found = _from_1(config) if schema == 1 else dict(config)
    if schema < SCHEMA:
        found |= {"schema": SCHEMA, "method": None, "phases": {}}
    model = found.get("model")
    if isinstance(model, str):  # of a training run; before a network could be told options, it had those by default
        found.setdefault("weight_bits", 32)  # weights were floats
        then = Settings(model=model).as_dict()
        found = {name: value for name, value in then.items() if name.startswith("model.")} | SINCE_3 | found
    return found


def _from_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """From settings of all kinds side by side, those of the others being there without a meaning."""
    found, default = dict(config), Settings()
    for matters_to, then in ADDED:
        if not matters_to.keys() <= config.keys():
            continue  # not the configuration of a training run
        matters = all(config.get(name) == value for name, value in matters_to.items())
        for name, value in then.items():
            found.setdefault(name, value if matters else getattr(default, name))
    kinds = Settings(**{name: found[name] for name in SLOTS if isinstance(found.get(name), str)})
    dotted: dict[str, Any] = {}
    for name, value in found.items():
        if name not in MOVED:
            dotted[name] = value
            continue
        slot, option = MOVED[name]
        kind = kinds.options(slot)
        if option in kind.values():
            text = isinstance(value, str) and option in radius_options(type(kind))
            dotted[f"{slot}.{option}"] = parse_number(f"{slot}.{option}", value) if text else value
        elif not kinds.knows(slot) and value != old_default(name):  # one's own factory may have read it
            dotted[f"{slot}.{option}"] = value
    return dotted


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
