"""What a run's files cost beside its steps: batches read, checkpoints saved and read again, lines of metrics."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import jax

from bap_jax.bench.arms import Measured, Pair, Told, measured, timed
from bap_jax.bench.step import RAMP_STEPS, TimedStep, check_batch, network, read_data
from bap_jax.checkpoint import Checkpoints, open_run
from bap_jax.data import train_batches
from bap_jax.runs.settings import Settings
from bap_jax.timing import Sample, Timed, sample
from bap_jax.training import network as network_in

STEP, BATCH, SAVE, READ, LINE = "step", "next batch", "checkpoint saved", "network read", "line of metrics"
GOALS = {BATCH: 0.01}


def time_files(settings: Settings, *, rounds: int, progress: Told) -> Measured:
    """Times what a run reads and writes, each against one training step.

    Args:
      settings: of the step; checked.
      rounds: how often each is timed.
      progress: told of the rounds done.

    Raises:
      SettingError: a batch larger than the training data.
    """
    source = read_data(settings)
    check_batch(settings, source)
    step = TimedStep(settings, source, network(settings, source), RAMP_STEPS)
    batches = itertools.cycle(train_batches(source, seed=settings.seed, batch_size=settings.batch_size, stop_step=RAMP_STEPS))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", settings.as_dict()) as run,
        Checkpoints(run.checkpoints, keep=2) as checkpoints,
    ):
        numbers = itertools.count(1)

        def save() -> None:
            checkpoints.save(next(numbers), step.state, network=network_in(step.state, step.recipe))
            checkpoints.wait()

        save()
        arms: dict[str, Timed] = {
            STEP: step.time,
            BATCH: _often(lambda: next(batches), 10),
            SAVE: lambda: sample(save),
            READ: timed(lambda: checkpoints.restore_network(checkpoints.latest_step())),
            LINE: _often(lambda: run.log(0, loss=0.5), 100),
        }
        pairs = [Pair(f"{name} / {STEP}", name, STEP, GOALS.get(name)) for name in arms if name != STEP]
        return measured("io", settings, arms, pairs, rounds=rounds, progress=progress)


def _often(call, times: int) -> Timed:
    def take() -> Sample:
        return sample(lambda: jax.block_until_ready(call()), times)

    return take
