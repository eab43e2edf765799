"""`bap train`: a run with progress, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from bap_jax.cli import arguments as cli
from bap_jax.cli.output import tell
from bap_jax.cli.process import devices_of
from bap_jax.cli.screen import console, progress_bar, show_pairs
from bap_jax.cli.slots import settings_told
from bap_jax.errors import SettingError
from bap_jax.parallel import is_main_process
from bap_jax.runs.loop import check_out, load_data, train
from bap_jax.runs.session import Trained
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import differences, settings_in
from bap_jax.runs.trust import NOTHING, Trust, check_trust
from bap_jax.runs.validation import summary


def given_settings(command: cli.Train, trust: Trust = NOTHING) -> Settings:
    """The part of a train command that is configuration; :func:`bap_jax.cli.main.read` put that of ``--config`` there."""
    settings = Settings(**settings_told(command))
    if command.config is not None:  # a name that the command line replaces is not used
        check_trust(settings.as_dict(), command.config.parent, trust, file=command.config.name)
    return settings


def show_config(settings: Settings, config: Path, screen: Console) -> None:
    """What a run takes from ``--config``, and what the command line says otherwise."""
    changed = [f"{name} {mine} (there {theirs})" for name, mine, theirs in differences(settings, settings_in(config))]
    screen.print(
        f"settings of {config}, " + (f"but {', '.join(changed)}" if changed else "all of them"), highlight=False, soft_wrap=True
    )


def run_train(command: cli.Train, trust: Trust) -> int:
    """`bap train`."""
    screen = console(quiet=not is_main_process())
    settings = given_settings(command, trust)
    if command.config is not None:
        show_config(settings, command.config, screen)
    check_out(settings, command.out, command.resume)
    writer = TensorBoard(command.out) if command.tensorboard and is_main_process() else None
    with progress_bar("reading data", None, screen) as update:
        splits = load_data(settings, progress=lambda done, total: update(done, "", total))
    try:
        with progress_bar("training", None, screen) as update:

            def progress(done: int, total: int, metrics: dict[str, float]) -> None:
                update(done, _now(metrics), total)

            trained = train(
                settings,
                command.out,
                splits=splits,
                resume=command.resume,
                devices=devices_of(command.devices) if command.distributed is None else None,
                shard=command.shard == "state",
                writer=writer,
                progress=progress,
            )
    finally:
        if writer is not None:
            writer.close()
    _show_trained(settings, trained, screen)
    tell(**trained._asdict())
    return 0


def _now(metrics: dict[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.3f}", f"sparsity {metrics['sparsity']:.3f}"]
    parts += [f"epsilon {metrics['epsilon_mean']:.3f}"] if metrics.get("epsilon_mean") else []
    return "  ".join(parts)


def _show_trained(settings: Settings, trained: Trained, screen: Console) -> None:
    if trained.resumed_from == trained.steps:
        screen.print(f"this run was finished already, at step {trained.steps}; nothing was trained", highlight=False)
    elif trained.resumed_from is not None:
        screen.print(f"resumed from step {trained.resumed_from}", highlight=False)
    for name, (then, now) in trained.changed_versions.items():
        said = f"{name} was {then} when the run was started, now {now}: results may differ"
        screen.print(said, style="yellow", highlight=False)
    pairs = [("steps", str(trained.steps)), ("sparsity", f"{trained.sparsity:.4f}")]
    pairs += [(f"validation, {name}", value) for name, value in summary(settings, trained.validation)]
    pairs += [
        ("best checkpoint", f"step {trained.best_step}"),
        ("seconds", f"{trained.seconds:.0f}"),
        ("run", str(trained.folder)),
    ]
    show_pairs("trained", pairs, screen)
    screen.print(f"next: bap evaluate {trained.folder}", highlight=False)


class TensorBoard:
    """A TensorBoard writer that makes its files at the first value: until then the run folder has to stay empty.

    Raises:
      SettingError: the package is missing.
    """

    def __init__(self, out: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise SettingError("--tensorboard", True, "the package tensorboardX: pip install 'bap_jax[tensorboard]'") from None
        self._make, self._folder = SummaryWriter, Path(out) / "tensorboard"
        self._writer: Any = None

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)  # a resumed run repeats what comes after its step
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
