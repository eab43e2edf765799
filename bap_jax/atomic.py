"""Files that are there whole or not at all, and JSON that every reader of JSON takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write a file so that nobody ever sees half of it: a temporary file beside it, then ``os.replace``.

    Args:
      path: where to; its folder must exist.
      content: bytes, or text (written as UTF-8).

    Returns:
      ``path``.

    Raises:
      OSError: the folder cannot be written to, or the disk is full; it names ``path``, and nothing is left behind.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # where the folder itself is what is wrong
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # which names nothing, or the temporary file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return path


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Nested values as JSON in the strict sense, which has neither NaN nor infinity: these become ``null``, a missing number.

    Args:
      value: nested mappings, lists, tuples, strings, numbers, booleans and None.
      indent: spaces per level; all on one line by default.

    Raises:
      TypeError: something in it is none of these.

    Example:
      >>> json_text({"ratio": float("inf"), "quartiles": (0.1, float("nan"))})
      '{"ratio": null, "quartiles": [0.1, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
