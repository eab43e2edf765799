"""Texts that mean numbers, read and printed; nothing here needs jax."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from bap_jax.errors import SettingError


def parse_number(name: str, text: str | float) -> float:
    """A decimal or a fraction: ``0.1``, ``8/255``; a number is itself.

    Raises:
      SettingError: neither.

    Example:
      >>> parse_number("--epsilon", "8/255")
      0.03137254901960784
    """
    try:
        return float(Fraction(text.strip())) if isinstance(text, str) else float(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise SettingError(name, text, "a number or a fraction such as 8/255") from None


def parse_numbers(name: str, value: str | Sequence[str | float]) -> tuple[float, ...]:
    """A comma list of numbers, or a sequence of them, as a tuple.

    Raises:
      SettingError: an entry that is no number.

    Example:
      >>> parse_numbers("--model.mean", "0.5,1/4"), parse_numbers("--model.mean", [0.5, 0.25])
      ((0.5, 0.25), (0.5, 0.25))
    """
    return tuple(parse_number(name, part) for part in _parts(value))


def parse_counts(name: str, value: str | Sequence[str | int]) -> tuple[int, ...]:
    """A comma list of whole numbers, or a sequence of them, as a tuple; an empty text is an empty list.

    Raises:
      SettingError: an entry that is none.

    Example:
      >>> parse_counts("--model.hidden", "300,100"), parse_counts("--model.hidden", "")
      ((300, 100), ())
    """
    return tuple(_count(name, part, value) for part in _parts(value))


def parse_widths(name: str, value: str | Mapping[str, int] | Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    """Widths of layers by their names, ``conv1=12,fc1=30`` or a mapping or its pairs, as pairs in the order of the names.

    Raises:
      SettingError: an entry without a layer or a whole number.

    Example:
      >>> parse_widths("--model.widths", "fc1=30,conv1=12") == parse_widths("--model.widths", {"conv1": 12, "fc1": 30})
      True
    """
    parts = value.items() if isinstance(value, Mapping) else _parts(value)
    pairs = [part.split("=") if isinstance(part, str) else part for part in parts]
    if not all(isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise SettingError(name, value, "widths of layers such as conv1=12,fc1=30")
    return tuple(sorted((layer.strip(), _count(name, width, value)) for layer, width in pairs))


def _parts(value: str | Sequence[Any]) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split(",") if value.strip() else ()
    return value


def _count(name: str, part: Any, value: Any) -> int:
    if type(part) is int:
        return part
    if isinstance(part, str) and part.strip().isdecimal():
        return int(part)
    raise SettingError(name, value, "whole numbers such as 16,32,64")


def format_value(value: Any) -> str:
    """The value of an option as people write it.

    Example:
      >>> [format_value(one) for one in ((0.5, 0.25), (("conv1", 12), ("fc1", 30)), 1e-3, None)]
      ['0.5,0.25', 'conv1=12,fc1=30', '0.001', 'None']
    """
    if isinstance(value, tuple):
        pairs = (f"{one[0]}={one[1]}" if isinstance(one, tuple) else format_value(one) for one in value)
        return ",".join(pairs)
    return format_radius(value) if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples are lists.

    Example:
      >>> plain((("conv1", 12),)), plain(0.5)
      ([['conv1', 12]], 0.5)
    """
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def format_radius(radius: float) -> str:
    """A radius as people write it: with few digits where these mean the same number, else as a fraction of 255.

    Example:
      >>> format_radius(0.3), format_radius(8 / 255), format_radius(1.0), format_radius(0.123456789)
      ('0.3', '8/255', '1', '0.123456789')
    """
    texts = (f"{radius:g}", f"{round(radius * 255)}/255") if math.isfinite(radius) else ()
    return next((text for text in texts if float(Fraction(text)) == radius), repr(float(radius)))


def parse_epsilons(name: str, text: str) -> tuple[float, ...]:
    """A comma list of radii, sorted and without repeats: ``0,8/255,0.1``.

    Raises:
      SettingError: an entry that is no number, negative or infinite.

    Example:
      >>> parse_epsilons("--epsilon", "0.2,0,0.1,0.1")
      (0.0, 0.1, 0.2)
    """
    values = sorted({parse_number(name, part) for part in text.split(",")})
    for value in values:
        if not 0 <= value < math.inf:
            raise SettingError(name, text, "numbers of at least 0")
    return tuple(values)


def parse_fractions(name: str, text: str) -> tuple[float, ...]:
    """A comma list of fractions of training that do not fall: ``50/120,90/120``; an empty text is an empty list.

    Raises:
      SettingError: an entry that is no number or outside [0, 1], or below the one before.

    Example:
      >>> parse_fractions("--tau-rises", "1/4,0.5"), parse_fractions("--tau-rises", "")
      ((0.25, 0.5), ())
    """
    values = tuple(parse_number(name, part) for part in text.split(",")) if text.strip() else ()
    if any(not 0 <= value <= 1 for value in values) or list(values) != sorted(values):
        raise SettingError(name, text, "fractions of training in [0, 1] that do not fall, such as 50/120,90/120")
    return values


class Written(NamedTuple):
    """How a value may be written, as the mark of a type: whoever reads texts takes that as well."""

    metavar: str
    parse: Callable[[str, Any], Any]
    expected: str
    takes: tuple[type, ...] = (str,)  # what is parsed; anything else has to be of the type that is marked


Radius = Annotated[float, Written("{0.3|8/255}", parse_number, "a number or a fraction such as 8/255")]
_LISTS = (str, list, tuple)
Numbers = Annotated[tuple[float, ...], Written("NUMBER,...", parse_numbers, "numbers such as 0.5,0.4,0.3", _LISTS)]
Counts = Annotated[tuple[int, ...], Written("COUNT,...", parse_counts, "whole numbers such as 16,32,64", _LISTS)]
Widths = Annotated[
    tuple[tuple[str, int], ...],
    Written("LAYER=COUNT,...", parse_widths, "widths of layers such as conv1=12,fc1=30", (*_LISTS, dict)),
]


def of_sequences(annotation: Any) -> Any:
    """A type with sequences of numbers, bare or in a union, as :data:`Numbers` or :data:`Counts`, mappings from names to whole
    numbers as :data:`Widths`, and no more than that changed.

    Example:
      >>> of_sequences(Sequence[int] | None) == Counts | None, of_sequences(dict[str, int]) == Widths, of_sequences(float)
      (True, True, <class 'float'>)
    """
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        first, *others = [of_sequences(kind) for kind in typing.get_args(annotation)]
        for other in others:
            first = first | other
        return first
    if typing.get_origin(annotation) in (dict, Mapping) and typing.get_args(annotation) == (str, int):
        return Widths
    if typing.get_origin(annotation) not in (tuple, list, Sequence):
        return annotation
    return {int: Counts, float: Numbers}.get(typing.get_args(annotation)[0], annotation)


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def of_type(name: str, value: Any, annotation: Any, where: str = "") -> Any:
    """A value of the type of its setting: a whole number counts as a number, a text that means one where :data:`Radius` says so.

    Args:
      name: the setting, for the error.
      value: what was given.
      annotation: the type, with its marks.
      where: the end of the error, such as ``, in config.json``.

    Raises:
      SettingError: it is of another type.

    Example:
      >>> of_type("epsilon", "8/255", Radius | None), of_type("scale", 2, float)
      (0.03137254901960784, 2.0)
      >>> of_type("seed", "1", int)
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: seed = '1': expected a whole number
    """
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    kinds = typing.get_args(annotation) if union else (annotation,)
    expected: list[str] = []
    failures: list[SettingError] = []
    for kind in kinds:
        if kind is Any:
            return value
        if typing.get_origin(kind) is Literal:
            if isinstance(value, str) and value in typing.get_args(kind):
                return value
            expected.append(", ".join(typing.get_args(kind)))
            continue
        plain, written = kind, None
        if typing.get_origin(kind) is Annotated:
            plain, mark = typing.get_args(kind)[0], kind.__metadata__[0]
            written = mark if isinstance(mark, Written) else None
        if written and isinstance(value, written.takes):
            try:
                return written.parse(name, value)
            except SettingError as error:
                failures.append(error)
                continue
        if plain is float and type(value) in (int, float):
            return float(value)
        if type(value) is plain:
            return value
        expected.append(written.expected if written else _NAMES[plain])
    if len(failures) == 1:
        raise failures[0]
    expected += [error.expected for error in failures]
    raise SettingError(name, value, " or ".join(expected) + where)


def is_radius(annotation: Any) -> bool:
    """Whether a type is :data:`Radius`, or that or None."""
    return annotation == Radius or Radius in typing.get_args(annotation)
