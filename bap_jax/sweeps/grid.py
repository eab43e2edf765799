"""Which runs a sweep is made of, as data: what is varied, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bap_jax.errors import SettingError
from bap_jax.plugins import is_import_path
from bap_jax.runs.naming import arm_of, network_name, process_of
from bap_jax.runs.parsing import parse_number
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import General, Settings
from bap_jax.runs.slots import place_of
from bap_jax.runs.stored import differences
from bap_jax.types import Bounds

RADIUS = "budget.epsilon"
Change = Mapping[str, Any]  # settings of `bap train` and their values
SETTINGS = tuple(field.name for field in dataclasses.fields(General))
STARTS = "starts"  # init_from of an arm that begins with a network of the sweep's own: starts/NAME
OF_A_START = ("data", "data_dir", "limit", "train_split", "test_split", "image_size", "model", "model_options", "seed")


class Process(NamedTuple):
    """One pruning process: when it begins and ends, as fractions of training, and the steps between its mask updates."""

    begin: float = 0.0
    end: float = 0.6
    frequency: int | None = None  # a twentieth of the ramp, at most 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Every data set × model × arm × epsilon × sparsity × pruning process × seed.

    An axis that is left empty stays as ``base`` has it.

    An arm keeps what it names itself: one that names its ``epsilon`` has that radius alone, and one that prunes nothing
    (``pruner="dense"``) has neither sparsities nor processes. ``epsilons`` are for the arms that cannot be without one.

    Args:
      base: what all cells share.
      data: names of data sets, or settings that go with one: ``{"data": "mnist", "model": "lenet5", "steps": 800}``.
      models: names of models, or settings that go with one.
      arms: for each arm the settings in which it departs from ``base``.
      epsilons: radii as ``bap train --budget.epsilon`` takes them.
      sparsities: final sparsities.
      processes: pruning processes.
      seeds: seeds.
      plans: how every cell is evaluated; or for each data set how its cells are.
      starts: networks that arms begin with, each trained once for a data set, a model and a seed: name -> the settings in which
        it departs from ``base``. An arm with ``init_from="starts/NAME"`` begins with it.
      title, notes: of the report.

    Example:
      >>> sweep = Sweep(
      ...     arms=({"budget": "none"}, {"budget": "uniform"}, {}), epsilons=("0.1", "0.3"), sparsities=(0.8, 0.9),
      ...     processes=(Process(0.0, 0.2), Process(0.0, 0.8)), seeds=range(3))
      >>> cells = sweep.cells()
      >>> len(cells), cell_name(cells[-1])
      (48, 'digits-mlp/blind/0-80%/s0.9/seed2')
    """

    base: Settings = dataclasses.field(default_factory=Settings)
    data: Sequence[str | Change] = ()
    models: Sequence[str | Change] = ()
    arms: Sequence[Change] = ({},)
    epsilons: Sequence[str | float] = ()
    sparsities: Sequence[float] = ()
    processes: Sequence[Process] = ()
    seeds: Sequence[int] = ()
    plans: Sequence[AttackPlan] | Mapping[str, Sequence[AttackPlan]] = (AttackPlan(),)
    starts: Mapping[str, Change] = dataclasses.field(default_factory=dict)
    title: str = "Accuracy, efficiency, robustness"
    notes: Sequence[str] = ()

    def cells(self) -> list[Settings]:
        """The settings of every cell, checked, the seeds varying fastest.

        Raises:
          SettingError: an axis or a setting that makes no sense, or two cells that would share a folder.
        """
        self._check_axes()
        cells = dict.fromkeys(cell for one in self._arms() for cell in self._prunings(*one))
        names: dict[str, Settings] = {}
        for cell in cells:
            other = names.setdefault(cell_name(cell.check()), cell)
            if other is not cell:
                differs, mine, theirs = differences(other, cell)[0]
                raise SettingError(differs, [mine, theirs], f"one value in the cells called {cell_name(cell)}, or two sweeps")
        for cell in cells:
            for plan in self.plans_of(cell):
                if not is_import_path(cell.data):
                    plan.check_radii(Bounds())
            self.start_of(cell)
        return list(cells)

    def start_of(self, cell: Settings) -> tuple[str, Settings] | None:
        """The folder, within the sweep's, and the settings of the network that a cell begins with; None if it is not the sweep's.

        Raises:
          SettingError: it names one that there is none of, or settings that make no sense.

        Example:
          >>> sweep = Sweep(arms=({"init_from": "starts/dense"},), starts={"dense": {"pruner": "dense"}}, seeds=(3,))
          >>> folder, settings = sweep.start_of(sweep.cells()[0])
          >>> folder, settings.pruner, settings.seed
          ('starts/digits-mlp/seed3/dense', 'dense', 3)
        """
        kind, _, name = (cell.init_from or "").partition("/")
        if kind != STARTS:
            return None
        if name not in self.starts:
            raise SettingError("init_from", cell.init_from, f"{STARTS}/ and one of {', '.join(self.starts) or 'no starts'}")
        change = _change(self.starts[name], "starts")
        own = {one: getattr(cell, one) for one in OF_A_START if one not in change}
        settings = self.base.changed(**{**own, **change}).check()
        return f"{STARTS}/{_in_path(_on(cell))}/seed{cell.seed}/{name}", settings

    def plans_of(self, cell: Settings) -> tuple[AttackPlan, ...]:
        """How a cell is evaluated."""
        if isinstance(self.plans, Mapping) and cell.data not in self.plans:
            raise SettingError("plans", list(self.plans), f"plans for the data set {cell.data} as well")
        return tuple(self.plans[cell.data] if isinstance(self.plans, Mapping) else self.plans)

    def _check_axes(self) -> None:
        for name in ("data", "models", "arms", "epsilons", "sparsities", "processes", "seeds"):
            value = getattr(self, name)
            if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
                raise SettingError(name, value, "a sequence, such as a tuple or a list")
        for process in self.processes:
            if not isinstance(process, Process):
                raise SettingError("processes", process, "Process(begin, end, frequency)")
        plans = self.plans.values() if isinstance(self.plans, Mapping) else [self.plans]
        for some in plans:
            if isinstance(some, AttackPlan | str) or not isinstance(some, Iterable):
                raise SettingError("plans", some, "a sequence of AttackPlan")
            for plan in some:
                if not isinstance(plan, AttackPlan):
                    raise SettingError("plans", plan, "an AttackPlan(attack=..., epsilon=...)")
                plan.check()

    def _arms(self) -> Iterable[tuple[Settings, Change]]:
        """Every data set, model, arm and radius, with what the arm itself names."""
        for data in self.data or ({},):
            on_data = _change(data, "data")
            for model in self.models or ({},):
                with_model = {**on_data, **_change(model, "model")}
                for arm in self.arms:
                    settings = self.base.changed(**{**with_model, **_change(arm, "arms")})
                    if not (self.epsilons and needs_radius(settings)):
                        yield settings, arm
                        continue
                    for radius in self.epsilons:
                        told = parse_number("epsilons", radius)
                        yield settings.changed(**{RADIUS: told}), {**arm, RADIUS: told}

    def _prunings(self, settings: Settings, arm: Change) -> Iterable[Settings]:
        """Every sparsity, process and seed of one arm."""
        dense = settings.pruner == "dense"
        ramps: list[Change] = [
            {"ramp_begin": begin, "ramp_end": end, "frequency": frequency} for begin, end, frequency in self.processes
        ]
        sparsities: list[Change] = [{"final_sparsity": sparsity} for sparsity in self.sparsities]
        seeds: list[Change] = [{"seed": seed} for seed in self.seeds]
        for sparsity in [{}] if dense else sparsities or [{}]:
            for ramp in [{}] if dense else ramps or [{}]:
                for seed in seeds or [{}]:
                    yield settings.changed(**{**sparsity, **ramp, **seed, **arm})


def _change(change: str | Change, axis: str) -> Change:
    """An entry of an axis as settings and their values; a name alone stands for ``{axis: name}``."""
    change = {axis: change} if isinstance(change, str) and axis != "arms" else change
    if not isinstance(change, Mapping):
        raise SettingError(axis, change, "settings of bap train and their values, such as {'budget': 'none'}")
    for name in change:
        if name not in (*SETTINGS, "phases") and place_of(name) is None:
            raise SettingError(axis, dict(change), f"settings of bap train; {name!r} is none")
    return change


def needs_radius(settings: Settings) -> bool:
    """Whether training cannot be without a radius and has none.

    Example:
      >>> [needs_radius(one) for one in (Settings(budget="uniform"), Settings(budget="uniform", epsilon="0.1"), Settings())]
      [True, False, False]
    """
    options = settings.options("budget")
    if "epsilon" not in options.values() or settings.value(RADIUS) is not None or not settings.knows("budget"):
        return False
    try:
        settings.check()
    except SettingError as error:
        return error.name == options.spoken("epsilon")
    return False


def cell_name(settings: Settings) -> str:
    """The folder of a cell inside the sweep's folder."""
    dense = settings.pruner == "dense"
    parts = [_on(settings), arm_of(settings), process_of(settings)]
    parts += [f"s{0 if dense else settings.final_sparsity:g}", f"seed{settings.seed}"]
    return "/".join(map(_in_path, parts))


def _in_path(part: str) -> str:
    return part.replace("/", "of").replace(", ", "_").replace(" ", "-").replace(":", "-")


def _on(settings: Settings) -> str:
    return f"{settings.data}-{network_name(settings)}"


def with_seeds(loaded: Sweep, seeds: int | None) -> Sweep:
    """The sweep with so many seeds, if a number is given."""
    if seeds is None:
        return loaded
    if seeds < 1:
        raise SettingError("--seeds", seeds, "a whole number of at least 1")
    return dataclasses.replace(loaded, seeds=range(seeds))
