"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


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
