"""JSON files that are complete or not there, and values that JSON can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bap_jax.atomic import json_text, write_atomic
from bap_jax.errors import SettingError


def check_json(value: Any, name: str) -> Any:
    """A value as it will come back from a JSON file.

    Args:
      value: nested mappings (with string keys), lists, tuples, strings, numbers, booleans and None.
      name: what the value is called in an error.

    Returns:
      The same with dicts and lists only.

    Raises:
      SettingError: something in it is none of these; the error names where.

    >>> check_json({"epsilon": (0.1, 0.2)}, "config")
    {'epsilon': [0.1, 0.2]}
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SettingError(name, key, "string keys only")
        return {key: check_json(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [check_json(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise SettingError(name, value, "a value that JSON can hold")


def write_json(path: str, value: Any) -> None:
    """Write a JSON file in one go: a reader, or a process killed at any instant, finds the old file or the new one.

    Args:
      path: the file.
      value: what :func:`check_json` accepts; numbers that are not finite become null.

    >>> import json, tempfile
    >>> path = tempfile.mkdtemp() + "/config.json"
    >>> write_json(path, {"seed": 0})
    >>> with open(path) as file:
    ...     json.load(file)
    {'seed': 0}
    """
    write_atomic(path, json_text(value, indent=2) + "\n")


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dicts by dotted name; an empty dict is an entry.

    >>> list(flatten({"pruner": {"scope": "global"}, "seed": 0}))
    [('pruner.scope', 'global'), ('seed', 0)]
    """
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from flatten(entry, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
