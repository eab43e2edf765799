"""`bap train` with the options of what fills its slots: the command line is read twice.

First only ``--config``, ``--method``, each ``--SLOT NAME`` and what is said of single phases are looked at: they choose the rows
of :data:`bap_jax.runs.slots.SLOTS`, and what settings are by default. Then
tyro reads a dataclass made for these: the settings of every run, and beside each slot's name the options of its kind
(``--budget.epsilon``). Flags that all kinds shared at first are rewritten in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from bap_jax.cli.arguments import Train
from bap_jax.errors import SettingError
from bap_jax.plugins import import_object
from bap_jax.runs.options import Own, types_of
from bap_jax.runs.parsing import Written, format_value, of_type
from bap_jax.runs.phased import OF_A_PHASE, as_told, merged
from bap_jax.runs.settings import General, Settings
from bap_jax.runs.slots import MOVED, OF_STEP, SLOTS, check_name, holders, parameters_of, place_of, takes_settings

HELP = ("-h", "--help")
PHASES = ("pretrain", "prune", "finetune", "train")  # the names that phases of methods have


class Reading(NamedTuple):
    """What the first look at a command line found."""

    settings: Settings  # of --config, or those by default, with the slots filled as the command line says
    named: tuple[str, ...]  # the slots that it names
    config: Path | None
    phases: Mapping[str, Mapping[str, Any]]  # what it, or --config, says of single phases
    arguments: tuple[str, ...]  # the command line without that


def given_value(arguments: Sequence[str], option: str) -> str | None:
    """The last value that a command line gives to an option; None where it gives none.

    Example:
      >>> given_value(["train", "--budget", "cat", "--budget=mma", "--out", "x"], "budget"), given_value(["train"], "budget")
      ('mma', None)
    """
    found = None
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == f"--{option}" and (equals or place + 1 < len(arguments)):
            found = value if equals else arguments[place + 1]
    return found


def with_network(command: type, arguments: Sequence[str]) -> type:
    """The type of a command that names a network and nothing else that has options: with the options of that network.

    Args:
      command: such a type of :mod:`bap_jax.cli.arguments`.
      arguments: the command line.

    Raises:
      SettingError: a name that means nothing there.
    """
    name = given_value(arguments, "model") or getattr(command, "model", None)
    if name is None:
        return command
    check_name("model", name)
    hint = Annotated[str, tyro.conf.arg(help=f"{_help_of(command, 'model')} Its options: --model NAME --help.")]
    default = next(field.default for field in dataclasses.fields(command) if field.name == "model")
    fields = [_options_field("model", Settings(model=name)), ("model", hint, dataclasses.field(default=default))]
    made = dataclasses.make_dataclass(command.__name__, fields, bases=(command,), frozen=True, kw_only=True)
    made.__doc__ = command.__doc__
    return made


def network_told(command: Any) -> dict[str, Any]:
    """The options of its network that a command says, as settings by their dotted names."""
    return _told(command, "model")


def _told(command: Any, slot: str) -> dict[str, Any]:
    told = getattr(command, f"{slot}_options", None)
    return {} if told is None else {f"{slot}.{name}": value for name, value in told.told().items()}


def _options_field(slot: str, settings: Settings) -> tuple[str, Any, Any]:
    """The field of the options of what fills a slot."""
    options = settings.options(slot)
    kind: Any = getattr(settings, slot) if isinstance(options, Own) else type(options)
    made = spoken(slot, kind)
    return f"{slot}_options", Annotated[made, tyro.conf.arg(name=slot)], _default(made, options.values())


def first_look(arguments: Sequence[str], stored: Settings | None) -> Reading:
    """Which kinds fill the slots.

    Args:
      arguments: the command line.
      stored: the settings of its ``--config``.

    Raises:
      SettingError: a name that means nothing there.
    """
    chosen = {slot: value for slot in SLOTS if (value := given_value(arguments, slot)) is not None}
    for slot, name in chosen.items():
        check_name(slot, name)
    config = given_value(arguments, "config")
    settings, method = stored or Settings(), given_value(arguments, "method")
    if method is not None:
        start = given_value(arguments, "init-from")
        settings = settings.changed(method=method, **({} if start is None else {"init_from": start}))
    settings = settings.changed(**chosen)
    phases, others = of_phases(arguments, settings)
    return Reading(settings, tuple(chosen), None if config is None else Path(config), phases, tuple(others))


def of_phases(arguments: Sequence[str], settings: Settings) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What a command line says of single phases: ``--finetune.budget none``, ``--prune.optimizer.learning-rate=0.1``.

    Args:
      arguments: the command line.
      settings: with the method, and what is said of its phases already.

    Returns:
      Phase -> setting -> value, and the other arguments.

    Raises:
      SettingError: a flag without a value, or one that no setting of a phase has.

    Example:
      >>> told, others = of_phases(["train", "--prune.epochs=3", "--finetune.nesterov", "--seed", "1"], Settings(method="hydra"))
      >>> told, others
      ({'prune': {'epochs': 3}, 'finetune': {'optimizer.nesterov': True}}, ['train', '--seed', '1'])
    """
    names = [phase.name for phase, _ in settings.in_phases()]
    texts: dict[str, dict[str, tuple[str, str | None]]] = {}
    others, words = [], list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        phase, dot, name = flag.removeprefix("--").partition(".")
        if not (flag.startswith("--") and dot and phase in names):
            if flag.startswith("--") and dot and phase in PHASES:
                method = settings.method or "without one"
                raise SettingError(
                    flag, value or None, f"a phase of the method ({method}): {', '.join(names) or 'it has one, the run'}"
                )
            others.append(word)
            continue
        text: str | None = value if equals else None
        if not equals and words and not words[0].startswith("--"):
            text = words.pop(0)
        plain = name.replace("-", "_")
        place = place_of(plain)
        texts.setdefault(phase, {})[f"{place[0]}.{place[1]}" if place else plain] = (flag, text)
    told = {phase: dict(changes) for phase, changes in as_told(settings.phases).items()}
    for phase, given in texts.items():
        kinds = {name: _typed(flag, text, str) for name, (flag, text) in given.items() if name in OF_STEP}
        for slot, kind in kinds.items():
            check_name(slot, kind)
        told[phase] = merged(told.get(phase, {}), kinds)
        own = dict(zip(names, (one for _, one in settings.changed(phases=told).in_phases()), strict=True))[phase]
        for name, (flag, text) in given.items():
            if name not in OF_STEP:
                told[phase][name] = _typed(flag, text, _type_in_phase(flag, text, name, own))
    return told, others


def _type_in_phase(flag: str, text: str | None, name: str, own: Settings) -> Any:
    """The type of a setting of a phase."""
    if name in OF_A_PHASE:
        return typing.get_type_hints(General)[name]
    slot, _, option = name.partition(".")
    if slot in OF_STEP:
        options = own.options(slot)
        types_there = types_of(type(options))
        if isinstance(options, Own):  # a configuration may have named it: nothing is imported here
            return bool | int | float | str
        if option in types_there:
            return types_there[option]
        expected = f"an option of {own.kind(slot)}: {', '.join(types_there) or 'none at all'}"
    else:
        expected = "a slot, an option of one, or one of " + ", ".join(OF_A_PHASE)
    raise SettingError(flag, text, expected)


def _typed(flag: str, text: str | None, hint: Any) -> Any:
    """A value of a type, from its text; a flag without one is true."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if union else (hint,)
    plain = [typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind for kind in kinds]
    if text is None:
        if bool in plain:
            return True
        raise SettingError(flag, None, "a value")
    if type(None) in plain and text.lower() == "none":
        return None
    if bool in plain and text.lower() in ("true", "false"):
        return text.lower() == "true"
    value: Any = text
    if int in plain or float in plain:
        with contextlib.suppress(ValueError):
            value = int(text) if int in plain else float(text)
    if value is text and int in plain and float in plain:
        with contextlib.suppress(ValueError):
            value = float(text)
    return of_type(flag, value, hint)


def renamed(arguments: Sequence[str], settings: Settings) -> tuple[list[str], dict[str, str]]:
    """A command line with old flags by their new names, and which were so.

    Args:
      arguments: as they were given.
      settings: what fills the slots.

    Returns:
      The arguments, and old flag -> new flag.

    Raises:
      SettingError: the kind that fills a slot has no such option.

    Example:
      >>> renamed(["train", "--epsilon=0.3", "--no-nesterov"], Settings(budget="uniform", optimizer="sgd"))[0]
      ['train', '--budget.epsilon=0.3', '--optimizer.no-nesterov']
    """
    found, told = [], {}
    for place, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        plain = flag.removeprefix("--").replace("-", "_")
        name = plain if plain in MOVED else plain.removeprefix("no_")
        if not flag.startswith("--") or name not in MOVED:
            found.append(word)
            continue
        slot, option = MOVED[name]
        options = settings.options(slot)
        if not isinstance(options, Own) and option not in types_of(type(options)):
            others = " and ".join(holders(slot, option))
            given = value if equals else (arguments[place + 1] if place + 1 < len(arguments) else "")
            raise SettingError(flag, given, f"nothing with --{slot} {settings.kind(slot)}; it is an option of {others}")
        new = f"--{slot}.{'no-' if name != plain else ''}{option.replace('_', '-')}"
        told[flag] = new
        found.append(new + equals + value)
    return found, told


def train_with(reading: Reading, *, only_named: bool = False) -> type[Train]:
    """The type of a train command whose slots are filled so.

    Args:
      reading: what fills them.
      only_named: leave out the options of slots that the command line does not name: for its help.
    """
    settings, fields = reading.settings, _other_defaults(reading.settings)
    for slot in SLOTS:
        if not only_named or slot in reading.named:
            fields.append(_options_field(slot, settings))
        hint = Annotated[str, tyro.conf.arg(help=f"{_help_of(Train, slot)} Options of a kind: bap train --{slot} NAME --help.")]
        fields.append((slot, hint, dataclasses.field(default=getattr(settings, slot))))
    told = {"phases": reading.phases}  # no flag of its own
    made_train = dataclasses.make_dataclass("Train", fields, bases=(Train,), namespace=told, frozen=True, kw_only=True)
    made_train.__doc__ = Train.__doc__
    return made_train


def _other_defaults(settings: Settings) -> list[tuple[str, Any, Any]]:
    """The settings of every run that stand in ``--config`` with another value than they have by default."""
    hints, fields = typing.get_type_hints(General, include_extras=True), []
    for field in dataclasses.fields(General):
        value = getattr(settings, field.name)
        if field.name not in SLOTS and value != field.default:
            hint: Any = Annotated[hints[field.name], tyro.conf.arg(help=_help_of(General, field.name))]
            fields.append((field.name, hint, dataclasses.field(default=value)))
    return fields


def _default(made: Any, values: Mapping[str, Any]) -> Any:
    """Options as they are if nothing is said; nothing where one has to be said."""
    known = {name: value for name, value in values.items() if name in made.__dataclass_fields__}
    needed = {field.name for field in dataclasses.fields(made) if field.default is dataclasses.MISSING}
    return dataclasses.field(default=made(**known)) if needed <= known.keys() else dataclasses.field()


def settings_told(command: Train) -> dict[str, Any]:
    """What a train command that :func:`train_with` made says, as settings by their names."""
    found = {name: getattr(command, name) for name in (*General.__dataclass_fields__, "phases")}
    for slot in SLOTS:
        found |= _told(command, slot)
    return found


class _Spoken:
    """What the command line reads of a slot's options."""

    def told(self) -> dict[str, Any]:
        """Options and their values; of code of one's own, those that are not what they are by default."""
        raise NotImplementedError


@functools.cache
def spoken(slot: str, kind: Any) -> Any:
    """A dataclass that tyro reads: of the options of a kind, given their class, or of the keywords of a factory of one's own."""
    if isinstance(kind, str):
        return _spoken_own(slot, kind)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        hint: Any = Annotated[_read(types_of(kind)[field.name]), tyro.conf.arg(help=_help_of(kind, field.name))]
        fields.append((field.name, hint, dataclasses.field(default=field.default)))
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(_Spoken,), frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    made.told = lambda self: {name: getattr(self, name) for name in made.__dataclass_fields__}  # type: ignore[attr-defined]
    return made


def _spoken_own(slot: str, path: str) -> Any:
    factory = import_object(f"--{slot}", path)
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in parameters_of(slot, factory).items():
        needed = parameter.default is inspect.Parameter.empty
        default = dataclasses.MISSING if needed else parameter.default
        fields.append((name, _read(parameter.annotation), dataclasses.field(default=default)))
    made = dataclasses.make_dataclass("Own", fields, bases=(_Spoken,), frozen=True, kw_only=True)
    made.__doc__ = inspect.getdoc(factory) or f"Options of {path}."

    types_told = {name: parameter.annotation for name, parameter in parameters_of(slot, factory).items()}

    def told(self: Any) -> dict[str, Any]:
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        said = {name: value for name, (value, default) in values.items() if default is dataclasses.MISSING or value != default}
        if takes_settings(factory):
            return said  # as texts, which the first form is used to
        read = {name: value for name, value in said.items() if isinstance(value, str)}  # those that tyro left as they are written
        return said | {name: of_type(f"--{slot}.{name}", value, types_told[name]) for name, value in read.items()}

    made.told = told  # type: ignore[attr-defined]
    return made


def _read(hint: Any) -> Any:
    """A type as tyro reads it. A number that may be written as a fraction stays a text here: :class:`Settings` reads it, and says
    in one line what is wrong with it.
    """
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    marks = [part.__metadata__[0] for part in parts if typing.get_origin(part) is Annotated]
    written = [mark for mark in marks if isinstance(mark, Written)]
    if not written:
        return hint
    return Annotated[Any, _spec("|".join(mark.metavar for mark in written))]


def _spec(metavar: str) -> Any:
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: None if words[0] == "None" else words[0],
        is_instance=lambda value: value is None or isinstance(value, float | str | tuple),
        str_from_instance=lambda value: [format_value(value)],
    )


@functools.cache
def _helps(kind: type) -> Mapping[str, str]:
    """The docstrings under the fields of a dataclass and its bases."""
    import ast
    import textwrap

    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if "__dataclass_fields__" not in base.__dict__:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = inspect.cleandoc(str(text.value.value))  # type: ignore[union-attr]
    return found


def _help_of(kind: type, name: str) -> str:
    return _helps(kind).get(name, "")
