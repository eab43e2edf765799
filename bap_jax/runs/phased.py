"""What a method's phases make of settings: each phase has settings of its own, those of the run but for what it fills itself.

What is kept of phases is the difference from what the method and the run say. Reading this needs no jax, using a method does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bap_jax.errors import SettingError
from bap_jax.methods import method_of
from bap_jax.runs.parsing import plain
from bap_jax.runs.slots import OF_STEP, place_of

if TYPE_CHECKING:
    from bap_jax.runs.settings import Settings
    from bap_jax.types import Phase

Told = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]  # (phase, (setting, value) ...) ...
PRETRAIN = "pretrain"  # a phase whose place a network takes that the run starts from
OF_A_PHASE = (
    "epochs",
    "steps",
    "patience",
    "initial_sparsity",
    "final_sparsity",
    "schedule",
    "ramp_begin",
    "ramp_end",
    "frequency",
    "weight_bits",
    "gradient_clip",
    "rate_schedule",
    "rate_warmup",
    "rate_boundaries",
    "rate_factors",
    "rate_cycles",
)  # settings, besides slots and their options, that phases may have otherwise than the run; the others hold in all of it


def dotted(slot: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a slot by their dotted names; a setting of a phase keeps its name.

    Example:
      >>> dotted("optimizer", {"learning_rate": 0.1, "rate_schedule": "cosine"})
      {'optimizer.learning_rate': 0.1, 'rate_schedule': 'cosine'}
    """
    return {name if name in OF_A_PHASE or "." in name else f"{slot}.{name}": value for name, value in options.items()}


def merged(published: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Published settings with those that were given in place; another kind in a slot leaves nothing of its options.

    Example:
      >>> merged({"budget": "uniform", "budget.epsilon": 0.1, "norm": "l2"}, {"budget": "cat"})
      {'norm': 'l2', 'budget': 'cat'}
    """
    kept = {}
    for name, value in published.items():
        slot, dot, _ = name.partition(".")
        replaced = given.get(slot, published.get(slot)) != published.get(slot) or given.get(f"{slot}_options") is not None
        if name not in given and not (dot and replaced):
            kept[name] = value
    return kept | dict(given)


def published(method: str, *, started: bool) -> dict[str, Any]:
    """What settings are by default under a method.

    Args:
      method: its name.
      started: whether the run starts from a network, which takes the place of pretraining.

    Raises:
      SettingError: there is no such method.

    Example:
      >>> [published("hydra", started=started)["epochs"] for started in (False, True)]
      [220, 120]
    """
    found, phases = dict(method_of(method).settings), phases_left(method, started=started)
    return found | {"epochs": sum(_epochs(phase) for phase in phases)} if phases else found


def phases_left(method: str | None, *, started: bool) -> tuple[Phase, ...]:
    """The phases of a method, none of one that has a single one; without pretraining if the run starts from a network."""
    phases = method_of(method).phases if method is not None else ()
    return tuple(phase for phase in phases if not (started and phase.name == PRETRAIN))


def _epochs(phase: Phase) -> int:
    assert phase.length is not None and phase.length.epochs is not None, "a method's phase has its published epochs"
    return int(phase.length.epochs)


def shared_out(name: str, total: int, parts: Sequence[int]) -> list[int]:
    """A whole number in proportion to others, none of the shares below 1.

    Raises:
      SettingError: there is not enough for that.

    Example:
      >>> shared_out("--epochs", 220, [100, 20, 100]), shared_out("--epochs", 5, [100, 20, 100])
      ([100, 20, 100], [2, 1, 2])
    """
    if total < len(parts):
        raise SettingError(name, total, f"at least {len(parts)}: one for each phase")
    exact = [total * part / sum(parts) for part in parts]
    found = [max(1, int(share)) for share in exact]
    while sum(found) != total:
        step = 1 if sum(found) < total else -1
        places = [place for place in range(len(parts)) if found[place] + step >= 1]
        best = max(places, key=lambda place: step * (exact[place] - found[place]))
        found[best] += step
    return found


def as_told(given: Mapping[str, Mapping[str, Any]] | Iterable[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings of phases, each name as it is today.

    Raises:
      SettingError: a setting that is no phase's own.
    """
    found: dict[str, dict[str, Any]] = {}
    for phase, changes in dict(given).items():
        found[phase] = {}
        for name, value in dict(changes).items():
            place = place_of(name)
            if (place is None or place[0] not in OF_STEP) and name not in (*OF_A_PHASE, *OF_STEP):
                raise SettingError(f"{phase}.{name}", value, "a slot, an option of one, or one of " + ", ".join(OF_A_PHASE))
            found[phase]["{}.{}".format(*place) if place else name] = value
    return found


def phase_settings(run: Settings, told: Mapping[str, Mapping[str, Any]]) -> list[tuple[Phase, Settings]]:
    """The phases of a run of settings, with what each trains by.

    Args:
      run: settings of the run.
      told: phase -> setting -> value, in which they depart from what the method and the run say.

    Raises:
      SettingError: a phase that there is none of.
    """
    phases = phases_left(run.method, started=run.init_from is not None)
    names = [phase.name for phase in phases]
    for phase_name, changes in told.items():
        if phase_name not in names and changes:
            name, value = next(iter(changes.items()))
            expected = f"a phase of --method {run.method}: {', '.join(names) or 'it has one, the run'}"
            raise SettingError(f"--{phase_name}.{name}", value, expected)
    if not phases:
        return []
    unit = "epochs" if run.steps is None else "steps"
    lengths = shared_out(f"--{unit}", getattr(run, unit), [_epochs(phase) for phase in phases])
    found = []
    for phase, length in zip(phases, lengths, strict=True):
        own: dict[str, Any] = {unit: length}
        assert isinstance(phase.slots, Mapping), "a method's slots are names and options"
        for slot, (kind, options) in phase.slots.items():
            own |= {slot: kind} | dotted(slot, options)
        changes = told.get(phase.name, {})
        if "epochs" in changes and "steps" not in changes:
            own = {name: value for name, value in own.items() if name != "steps"} | {"steps": None}
        found.append((phase, run.alone(**merged(own, changes))))
    return found


def departures(run: Settings, told: Mapping[str, Mapping[str, Any]]) -> Told:
    """What of the settings of phases is not so by itself, each of its own type, in the order of the phases."""
    kinds = {phase: {name: value for name, value in changes.items() if name in OF_STEP} for phase, changes in told.items()}
    found = []
    every = (phase_settings(run, some) for some in ({}, kinds, told))
    for (phase, bare), (_, filled), (_, settings) in zip(*every, strict=True):
        own = {name: settings.value(name) for name in told.get(phase.name, {})}
        otherwise = {name: (bare if name in OF_STEP else filled).value(name) for name in own}
        differing = {name: value for name, value in own.items() if value != otherwise[name]}
        if differing:
            found.append((phase.name, tuple(sorted(differing.items()))))
    return tuple(found)


def in_full(run: Settings) -> dict[str, dict[str, Any]]:
    """Phase -> setting -> value, of everything that a phase fills itself: what config.json holds of phases."""
    found: dict[str, dict[str, Any]] = {}
    for phase, settings in run.in_phases():
        own: dict[str, Any] = {}
        for name in ("epochs", "steps") if settings.steps is None else ("steps",):
            own[name] = getattr(settings, name)
        for name in OF_A_PHASE[2:]:
            if getattr(settings, name) != getattr(run, name):
                own[name] = getattr(settings, name)
        for slot in OF_STEP:
            if getattr(settings, slot) != getattr(run, slot) or settings.options(slot) != run.options(slot):
                own[slot] = getattr(settings, slot)
                own |= {f"{slot}.{name}": plain(value) for name, value in settings.options(slot).values().items()}
        found[phase.name] = own
    return found
