"""Texts that mean numbers, read and printed; nothing here needs jax."""

from __future__ import annotations

import math
import types
import typing
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from bap_jax.errors import SettingError


class Written(NamedTuple):
    """How a number may be written, as the mark of a type: whoever reads texts takes a fraction as well."""

    metavar: str


Radius = Annotated[float, Written("{0.3|8/255}")]


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
    except (ValueError, ZeroDivisionError, OverflowError):
        raise SettingError(name, text, "a number or a fraction such as 8/255") from None


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
    expected = []
    for kind in kinds:
        if kind is Any:
            return value
        if typing.get_origin(kind) is Literal:
            if isinstance(value, str) and value in typing.get_args(kind):
                return value
            expected.append(", ".join(typing.get_args(kind)))
            continue
        plain, written = kind, False
        if typing.get_origin(kind) is Annotated:
            plain, written = typing.get_args(kind)[0], isinstance(kind.__metadata__[0], Written)
        if written and isinstance(value, str):
            return parse_number(name, value)
        if plain is float and type(value) in (int, float):
            return float(value)
        if type(value) is plain:
            return value
        expected.append(_NAMES[plain] + (" or a fraction such as 8/255" if written else ""))
    raise SettingError(name, value, " or ".join(expected) + where)


def is_radius(annotation: Any) -> bool:
    """Whether a type is :data:`Radius`, or that or None."""
    return annotation == Radius or Radius in typing.get_args(annotation)
