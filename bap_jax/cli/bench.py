"""`bap bench`: what a training step costs, as ratios of steps timed in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from bap_jax.atomic import json_text, write_atomic
from bap_jax.cli.arguments import Bench
from bap_jax.cli.bench_process import RAMP_STEPS, Stalled, StepProcess
from bap_jax.cli.bench_step import TimedStep, mask_work, network, read_data
from bap_jax.cli.screen import console, progress_bar
from bap_jax.cli.settings import Settings
from bap_jax.cli.timing import Ratio, Sample, Timed, in_turn, median, ratio, sample
from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import Ramp
from bap_jax.models import NETWORKS
from bap_jax.parallel import check_batch_size, cores, data_mesh

UNIFORM, BLIND, BFLOAT16 = "uniform budget", "blind", "blind, bfloat16"
PLAIN, FAST = "blind, plain convolutions", "blind, fast convolutions"
QUIET, UPDATE = "mask work, masks not due", "mask work, masks due"
MATMUL = 4096


class Row(NamedTuple):
    """One line of the result."""

    what: str
    ratio: Ratio
    processor: Ratio | None  # of processor time: a busy machine hardly changes it; says nothing on an accelerator
    goal: float | None


class Arms(NamedTuple):
    """What is timed in this process."""

    steps: dict[str, TimedStep]
    others: dict[str, Timed]

    def timed(self) -> dict[str, Timed]:
        return {name: step.time for name, step in self.steps.items()} | self.others


def bench(command: Bench) -> int:
    """Times the steps in turn and prints the ratios; 1 if the step on several devices stalled."""
    if command.sweep:
        from bap_jax.cli.bench_sweep import bench_sweep

        return bench_sweep(command)
    settings = _settings(command)
    ramp = settings.ramp(RAMP_STEPS)
    screen = console()
    with progress_bar("compiling, then timing", command.rounds, screen) as update:
        arms = _arms(settings, ramp)
        with _devices(command, settings) as many:
            samples, stalled = _measure(arms.timed(), many, command.rounds, lambda done: update(done, "rounds"))
    rows = _rows(samples, ramp)
    record = {
        "machine": machine(),
        "settings": settings.as_dict(),
        "rounds": command.rounds,
        "ratios": [plain(row) for row in rows],
        "steps": _steps(arms, samples),
        "utilisation": _utilisation(settings, samples),
        "stalled": stalled,
    }
    _show(record, rows, screen)
    if command.out is not None:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(command.out, json_text(record, indent=1) + "\n")
        screen.print(f"figures: {command.out}", highlight=False)
    return 1 if stalled else 0


def _settings(command: Bench) -> Settings:
    if command.rounds < 1:
        raise SettingError("--rounds", command.rounds, "a whole number of at least 1")
    if command.devices is not None and command.devices < 1:
        raise SettingError("--devices", command.devices, "a whole number of at least 1")
    check_batch_size(command.batch_size, _Count(_device_count(command)), "--batch-size")  # type: ignore[arg-type]
    return Settings(
        data=command.data,
        data_dir=command.data_dir,
        model=command.model,
        batch_size=command.batch_size,
        attack_steps=command.attack_steps,
    ).check()


def _arms(settings: Settings, ramp: Ramp) -> Arms:
    source = read_data(settings)
    if len(source) < settings.batch_size:
        raise SettingError("--batch-size", settings.batch_size, f"at most {len(source)}, the training examples there are")
    fast_is_default = jax.default_backend() == "cpu"

    def step(chosen: Settings, **options: Any) -> TimedStep:
        return TimedStep(chosen, source, network(settings, source, **options), ramp)

    steps = {UNIFORM: step(dataclasses.replace(settings, budget="uniform", epsilon="0.2")), BLIND: step(settings)}
    if has_convolutions(steps[BLIND]):
        other, kind = (PLAIN, "plain") if fast_is_default else (FAST, "fast")
        steps[other] = step(settings, conv=kind)
    if not fast_is_default and settings.model in NETWORKS:
        steps[BFLOAT16] = step(settings, dtype=jnp.bfloat16)
    work = mask_work(steps[BLIND].slots, steps[BLIND].state)
    masks = {QUIET: work(int(ramp.begin_step) + 1), UPDATE: work(int(ramp.end_step))}
    return Arms(steps, masks)


def has_convolutions(step: TimedStep) -> bool:
    """Whether some weight is a kernel [h, w, C, F]."""
    return any(leaf.ndim == 4 for leaf in jax.tree.leaves(step.state.trainable))


@contextlib.contextmanager
def _devices(command: Bench, settings: Settings):
    """The blind step on one device and on several, each under a name that says on how many: processes on a CPU."""
    if jax.default_backend() != "cpu":
        yield _accelerators(command, settings)
        return
    with contextlib.ExitStack() as stack:
        count = _device_count(command)
        counts = [1, count] if count > 1 else []
        yield {device_arm(n): stack.enter_context(StepProcess(n, settings.as_dict())).time for n in counts}


class _Count(NamedTuple):
    size: int


def _device_count(command: Bench) -> int:
    if command.devices is not None:
        return command.devices
    return cores() if jax.default_backend() == "cpu" else len(jax.devices())


def _accelerators(command: Bench, settings: Settings) -> dict[str, Timed]:
    mesh = data_mesh(command.devices)
    if mesh.size == 1:
        return {}
    source = read_data(settings)
    ramp, model = settings.ramp(RAMP_STEPS), network(settings, source)
    return {
        device_arm(1): TimedStep(settings, source, model, ramp).time,
        device_arm(mesh.size): TimedStep(settings, source, model, ramp, mesh).time,
    }


def device_arm(count: int) -> str:
    return f"blind on {count} device{'s' if count > 1 else ''}"


def _measure(here: dict[str, Timed], many: dict[str, Timed], rounds: int, told: Callable[[int], None]):
    """The samples of all, or of those in this process if another one stalled, and what went wrong there."""
    try:
        for timed in many.values():
            timed()  # the first answer comes after compiling
        return in_turn(here | many, rounds, told), ""
    except Stalled as error:
        return in_turn(here, rounds, told), str(error)


def _rows(samples: dict[str, list[Sample]], ramp: Ramp) -> list[Row]:
    def row(what: str, these: list[Sample], those: list[Sample], goal: float | None = None) -> Row:
        on_cpu = jax.default_backend() == "cpu"
        return Row(what, ratio(these, those), ratio(these, those, "processor") if on_cpu else None, goal)

    blind, every = samples[BLIND], int(ramp.frequency)
    rows = [row("blind / uniform", blind, samples[UNIFORM], 1.5)]
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

    >>> amortised(Sample(11.0, 11.0), Sample(1.0, 1.0), 10).wall
    2.0
    """
    return Sample(*((u + (frequency - 1) * q) / frequency for u, q in zip(update, quiet, strict=True)))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"device": device.device_kind, "platform": device.platform, "cores": cores(), "load": load, "jax": jax.__version__}


def _steps(arms: Arms, samples: dict[str, list[Sample]]) -> dict[str, dict[str, float | None]]:
    def line(name: str) -> dict[str, float | None]:
        seconds = median(samples[name])
        compiled = arms.steps[name].compile_seconds if name in arms.steps else None
        return {"seconds": seconds, "per_second": 1 / seconds, "compile_seconds": compiled}

    return {name: line(name) for name in samples}


def model_flops(settings: Settings, forward: float) -> float:
    """Floating-point operations of a blind step, counted as is usual in quoting a model's utilisation.

    With F for one evaluation of the network on the batch: an attack step is 2 F (forward, and back to the images), training on
    the clean and the attacked images 6 F, the search an attack step and an evaluation for each bisection, with linear halving
    another for the far end.

    >>> model_flops(Settings(attack_steps=7, num_bisections=6), 1.0)
    28.0
    """
    search = 2 * (settings.search_steps or 1) + settings.num_bisections + (settings.halving == "linear")
    return forward * (2 * settings.attack_steps + 6 + search)


def forward_flops(settings: Settings) -> float:
    """What XLA counts for one evaluation of the network on a batch."""
    source = read_data(settings)
    model = network(settings, source)
    images = jax.ShapeDtypeStruct((settings.batch_size, *source.image_shape), jnp.float32)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), images)
    evaluate = jax.jit(lambda *arguments: model.apply(*arguments, train=False)[0].logits)
    cost = evaluate.lower(params, model_state, images).cost_analysis() or {}
    return float(cost["flops"])


def matmul_rate(dtype, size: int = MATMUL, repeats: int = 20) -> float:
    """Measured operations per second of a square matrix product, at jax's default precision (TF32 on GPUs that have it).

    >>> matmul_rate(jnp.float32, size=64, repeats=2) > 0
    True
    """
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)

    @jax.jit
    def products(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: x @ y * jnp.asarray(size**-0.5, dtype), x)

    call = lambda: products(left).block_until_ready()  # noqa: E731
    call()
    seconds = min(sample(call).wall for _ in range(3))
    return 2.0 * size**3 * repeats / seconds


def _utilisation(settings: Settings, samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Of an accelerator; on a CPU that other work shares, the measured rate of a matrix product means little."""
    if jax.default_backend() == "cpu":
        return []
    work = model_flops(settings, forward_flops(settings))
    names = {BLIND: jnp.float32, BFLOAT16: jnp.bfloat16}
    return [
        utilisation(name, work, median(samples[name]), matmul_rate(dtype)) for name, dtype in names.items() if name in samples
    ]


def utilisation(name: str, flops: float, seconds: float, rate: float) -> dict[str, Any]:
    """The share of the measured matrix-product rate that a step reaches.

    >>> utilisation("blind", 1e12, 0.5, 4e12)["share"]
    0.5
    """
    return {"step": name, "flops": flops, "seconds": seconds, "matmul_rate": rate, "share": flops / seconds / rate}


def plain(row: Row) -> dict[str, Any]:
    """A line of the result as JSON."""
    processor = None if row.processor is None else row.processor._asdict()
    return {"what": row.what, "wall": row.ratio._asdict(), "processor": processor, "goal": row.goal}


def _show(record: dict[str, Any], rows: list[Row], screen: Console) -> None:
    machine = record["machine"]
    settings = record["settings"]
    title = f"{settings['data']}, {settings['model']}, batch {settings['batch_size']}, PGD-{settings['attack_steps']}"
    screen.print(ratios(f"{title}: median of {record['rounds']} rounds (min–max)", rows))
    table = Table(title=f"steps on {machine['device']}, {machine['platform']}, jax {machine['jax']}", title_justify="left")
    for column in ("step", "seconds", "per second", "compiled in"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, line in record["steps"].items():
        compiled = "" if line["compile_seconds"] is None else f"{line['compile_seconds']:.1f} s"
        table.add_row(name, f"{line['seconds']:.4g}", f"{line['per_second']:.4g}", compiled)
    screen.print(table)
    for use in record["utilisation"]:
        text = f"{use['step']}: {use['flops']:.3g} operations, {100 * use['share']:.1f} % of {use['matmul_rate']:.3g} per second"
        screen.print(text + ", the measured rate of a matrix product", highlight=False)
    if record["stalled"]:
        screen.print(record["stalled"], style="red")
    if machine["platform"] == "cpu" and machine["load"] is not None and machine["load"] > 1.5 * machine["cores"]:
        busy = f"this machine is busy (load {machine['load']:.1f} on {machine['cores']} cores)"
        screen.print(f"{busy}: trust the ratios of processor time more than those of the clock", style="yellow")


def ratios(title: str, rows: list[Row]) -> Table:
    """The result as a table."""
    table = Table(title=title, title_justify="left")
    for column in ("ratio", "clock", "processor time", "goal"):
        table.add_column(column, justify="left" if column == "ratio" else "right")
    for row in rows:
        goal = "" if row.goal is None else f"≤ {row.goal:g}" if row.goal >= 0.1 else f"≤ {100 * row.goal:g} %"
        table.add_row(row.what, _ratio_text(row.ratio), "" if row.processor is None else _ratio_text(row.processor), goal)
    return table


def _ratio_text(value: Ratio) -> str:
    if value.median >= 0.1:
        return f"{value.median:.2f} ({value.low:.2f}–{value.high:.2f})"
    return f"{100 * value.median:.2f} % ({100 * value.low:.2f}–{100 * value.high:.2f})"
