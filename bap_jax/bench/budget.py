"""What each budget's training step costs, against that of the uniform budget with the same attack."""

from __future__ import annotations

from bap_jax.bench.arms import Measured, Pair, Told, measured
from bap_jax.bench.step import RAMP_STEPS, TimedStep, check_batch, network, read_data
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import names_of

UNIFORM = "uniform"
GOALS = {"cutoff-scale": 1.2}  # of a blind step, on networks with convolutions


def time_budgets(settings: Settings, *, rounds: int, progress: Told) -> Measured:
    """Times a training step with every budget that there is.

    Args:
      settings: of the steps, but for the budget; checked.
      rounds: how often each is timed.
      progress: told of the rounds done.

    Raises:
      SettingError: a batch larger than the training data.
    """
    source = read_data(settings)
    check_batch(settings, source)
    told = {UNIFORM: {"epsilon": "0.2"}}
    budgets = {name: settings.changed(budget=name, **told.get(name, {})) for name in names_of("budget")}
    steps = {name: TimedStep(own, source, network(own, source), RAMP_STEPS) for name, own in budgets.items()}
    pairs = [Pair(f"{name} / {UNIFORM}", name, UNIFORM, GOALS.get(name)) for name in steps if name != UNIFORM]
    arms = {name: step.time for name, step in steps.items()}
    record, rows = measured("budget", settings, arms, pairs, rounds=rounds, progress=progress, images=settings.batch_size)
    for name, step in steps.items():
        record["steps"][name]["compile_seconds"] = step.compile_seconds
    return record, rows
