"""What a training step costs, as ratios of steps timed in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bap_jax.bench.arms import line, row
from bap_jax.bench.compiling import first_steps, peak_bytes
from bap_jax.bench.process import Stalled, StepProcess
from bap_jax.bench.result import RatioRow, machine, plain
from bap_jax.bench.step import RAMP_STEPS, TimedStep, check_batch, has_convolutions, mask_work, network, read_data
from bap_jax.bench.utilisation import forward_flops, matmul_rate, model_flops, utilisation
from bap_jax.mathematics.schedules import Ramp
from bap_jax.models import NETWORKS
from bap_jax.parallel import cores, data_mesh
from bap_jax.runs.settings import Settings
from bap_jax.timing import Sample, Timed, in_turn, median

UNIFORM, BLIND, BFLOAT16 = "uniform budget", "blind", "blind, bfloat16"
PLAIN, FAST = "blind, plain convolutions", "blind, fast convolutions"
QUIET, UPDATE = "mask work, masks not due", "mask work, masks due"


class Arms(NamedTuple):
    """What is timed in this process."""

    steps: dict[str, TimedStep]
    others: dict[str, Timed]

    def timed(self) -> dict[str, Timed]:
        return {name: step.time for name, step in self.steps.items()} | self.others


def time_steps(
    settings: Settings,
    *,
    rounds: int,
    devices: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    processes: bool = True,
) -> tuple[dict[str, Any], list[RatioRow]]:
    """Times the steps in turn.

    Args:
      settings: of the steps; checked.
      rounds: how often each is timed.
      devices: of the step on several devices; every core, or every accelerator, by default.
      progress: called with the rounds done.
      processes: also take the first steps in processes of their own, on a CPU: compile time, cold and cached, and peak memory.

    Returns:
      The figures as JSON, ``stalled`` saying what went wrong with the step on several devices if it stalled; and the ratios.

    Raises:
      SettingError: a batch larger than the training data.
    """
    ramp = settings.ramp(RAMP_STEPS)
    arms = _arms(settings, ramp)
    with _devices(devices, settings) as many:
        samples, stalled = _measure(arms.timed(), many, rounds, progress)
    rows = _rows(samples, ramp)
    record = {
        "suite": "step",
        "machine": machine(),
        "settings": settings.as_dict(),
        "rounds": rounds,
        "ratios": [plain(row) for row in rows],
        "steps": _steps(arms, samples, settings.batch_size),
        "utilisation": _utilisation(settings, samples),
        "first_steps": first_steps(settings) if processes and jax.default_backend() == "cpu" else None,
        "peak_bytes": peak_bytes(),
        "stalled": stalled,
    }
    return record, rows


def _arms(settings: Settings, ramp: Ramp) -> Arms:
    source = read_data(settings)
    check_batch(settings, source)
    fast_is_default = jax.default_backend() == "cpu"

    def step(chosen: Settings, **options: Any) -> TimedStep:
        return TimedStep(chosen, source, network(settings, source, **options), RAMP_STEPS)

    steps = {UNIFORM: step(settings.changed(budget="uniform", epsilon="0.2")), BLIND: step(settings)}
    if has_convolutions(steps[BLIND]):
        other, kind = (PLAIN, "plain") if fast_is_default else (FAST, "fast")
        steps[other] = step(settings, conv=kind)
    if not fast_is_default and settings.model in NETWORKS:
        steps[BFLOAT16] = step(settings, dtype=jnp.bfloat16)
    work = mask_work(steps[BLIND].recipe.pruner, steps[BLIND].state)
    masks = {QUIET: work(int(ramp.begin_step) + 1), UPDATE: work(int(ramp.end_step))}
    return Arms(steps, masks)


@contextlib.contextmanager
def _devices(devices: int | None, settings: Settings):
    """The blind step on one device and on several, each under a name that says on how many: processes on a CPU."""
    if jax.default_backend() != "cpu":
        yield _accelerators(devices, settings)
        return
    with contextlib.ExitStack() as stack:
        count = device_count(devices)
        counts = [1, count] if count > 1 else []
        yield {device_arm(n): stack.enter_context(StepProcess(n, settings.as_dict())).time for n in counts}


def device_count(devices: int | None) -> int:
    """How many devices the step on several is timed on."""
    if devices is not None:
        return devices
    return cores() if jax.default_backend() == "cpu" else len(jax.devices())


def _accelerators(devices: int | None, settings: Settings) -> dict[str, Timed]:
    mesh = data_mesh(devices)
    if mesh.size == 1:
        return {}
    source = read_data(settings)
    model = network(settings, source)
    return {
        device_arm(1): TimedStep(settings, source, model, RAMP_STEPS).time,
        device_arm(mesh.size): TimedStep(settings, source, model, RAMP_STEPS, mesh).time,
    }


def device_arm(count: int) -> str:
    """What the step on several devices is called."""
    return f"blind on {count} device{'s' if count > 1 else ''}"


def _measure(here: dict[str, Timed], many: dict[str, Timed], rounds: int, progress: Callable[[int], None]):
    """The samples of all, or of those in this process if another one stalled, and what went wrong there."""
    try:
        for timed in many.values():
            timed()  # the first answer comes after compiling
        return in_turn(here | many, rounds, progress), ""
    except Stalled as error:
        return in_turn(here, rounds, progress), str(error)


def _rows(samples: dict[str, list[Sample]], ramp: Ramp) -> list[RatioRow]:
    blind, every = samples[BLIND], int(ramp.frequency)
    rows = [row("blind / uniform", blind, samples[UNIFORM], 1.2 if PLAIN in samples or FAST in samples else 1.35)]
    if PLAIN in samples:
        rows.append(row("fast / plain convolutions", blind, samples[PLAIN]))
    if FAST in samples:
        rows.append(row("fast / plain convolutions", samples[FAST], blind))
    if BFLOAT16 in samples:
        rows.append(row("bfloat16 / float32", samples[BFLOAT16], blind))
    several = [name for name in samples if name.startswith("blind on ")]
    if several:
        one, many = several
        rows.append(row(f"{many.removeprefix('blind on ')} / 1 device", samples[many], samples[one]))
    spread = [amortised(*pair, every) for pair in zip(samples[UPDATE], samples[QUIET], strict=True)]
    rows.append(row(f"masks / step, 1 update in {every}", spread, blind, 0.02))
    rows.append(row("masks / step, at an update", samples[UPDATE], blind))
    return rows


def amortised(update: Sample, quiet: Sample, frequency: int) -> Sample:
    """Per step, if one step in ``frequency`` updates the masks.

    Example:
      >>> amortised(Sample(11.0, 11.0), Sample(1.0, 1.0), 10).wall
      2.0
    """
    return Sample(*((u + (frequency - 1) * q) / frequency for u, q in zip(update, quiet, strict=True)))


def _steps(arms: Arms, samples: dict[str, list[Sample]], batch_size: int) -> dict[str, dict[str, float | None]]:
    def of(name: str) -> dict[str, float | None]:
        images = None if name in (QUIET, UPDATE) else batch_size
        return line(samples[name], images, arms.steps[name].compile_seconds if name in arms.steps else None)

    return {name: of(name) for name in samples}


def _utilisation(settings: Settings, samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """The share of the measured rate of matrix products; on a CPU that other work shares, both are measured low."""
    work = model_flops(settings, forward_flops(settings))
    names = {BLIND: jnp.float32, BFLOAT16: jnp.bfloat16}
    return [
        utilisation(name, work, median(samples[name]), matmul_rate(dtype)) for name, dtype in names.items() if name in samples
    ]
