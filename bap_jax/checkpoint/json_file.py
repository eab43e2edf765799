"""JSON files that are complete or not there, and values that JSON can hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from bap_jax.atomic import json_text, write_atomic
from bap_jax.checkpoint.paths import absolute
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

    Example:
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

    Example:
      >>> import json, tempfile
      >>> path = tempfile.mkdtemp() + "/config.json"
      >>> write_json(path, {"seed": 0})
      >>> with open(path) as file:
      ...     json.load(file)
      {'seed': 0}
    """
    write_atomic(path, json_text(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from a file that may have been cut off, edited or replaced since it was written.

    Args:
      path: the file, which may lie at an address.

    Returns:
      What it holds.

    Raises:
      FileNotFoundError: it is not there.
      SettingError: it holds something else than a JSON object; the error names the file and what is wrong.

    Example:
      >>> import tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "config.json")
      >>> write_json(path, {"seed": 0})
      >>> read_json(path)
      {'seed': 0}
    """
    content = absolute(path).read_bytes()
    try:
        value = json.loads(content)
        reason = f"not a {type(value).__name__}"
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8
        value, reason = None, str(error).partition(": '")[0] if isinstance(error, UnicodeDecodeError) else str(error)
    if not isinstance(value, dict):
        raise SettingError(os.fspath(path), excerpt(content), f"a JSON object as bap writes it ({reason})")
    return value


def excerpt(content: bytes, length: int = 40) -> str:
    """The beginning of a file's content, for a message.

    Example:
      >>> excerpt(b"{'seed': 0}"), excerpt(b"x" * 100, 3)
      ("{'seed': 0}", 'xxx…')
    """
    text = content[: 4 * length].decode(errors="replace")
    return text if len(text) <= length else text[:length] + "…"


def dotted_entries(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dicts by dotted name; an empty dict is an entry.

    Example:
      >>> list(dotted_entries({"pruner": {"scope": "global"}, "seed": 0}))
      [('pruner.scope', 'global'), ('seed', 0)]
    """
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from dotted_entries(entry, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value
