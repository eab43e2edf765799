"""What an evaluation has found so far, on disk, so that one that was cut off goes on where it stopped."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bap_jax.atomic import write_atomic

HEADER = "header.json"


class Journal:
    """A folder with one file per attack and batch; worth nothing for another header, which says what the files belong to.

    Args:
      folder: where; made at the first record.
      header: whatever the results depend on, as JSON. A folder with another header is emptied.

    Example:
      >>> import tempfile
      >>> journal = Journal(Path(tempfile.mkdtemp()) / "part", {"seed": 0})
      >>> journal.record("pgd/0.1/0", {"hit": np.array([True])})
      >>> journal.recall("pgd/0.1/0"), journal.recall("pgd/0.2/0")
      ({'hit': array([ True])}, None)
      >>> Journal(journal.folder, {"seed": 1}).recall("pgd/0.1/0") is None
      True
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]):
        self.folder, self.header = folder, json.dumps(header, sort_keys=True, default=str, allow_nan=False)
        path = folder / HEADER
        if folder.exists() and not (path.exists() and path.read_text(encoding="utf-8") == self.header):
            shutil.rmtree(folder)

    def recall(self, name: str) -> dict[str, np.ndarray] | None:
        """What was recorded under this name, or None."""
        path = self._path(name)
        if not path.exists():
            return None
        with np.load(path) as stored:
            return {column: stored[column] for column in stored.files}

    def record(self, name: str, rows: Mapping[str, np.ndarray]) -> None:
        """Keeps the rows; a crash leaves the whole file or none."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            write_atomic(self.folder / HEADER, self.header)
        buffer = io.BytesIO()
        np.savez(buffer, **rows)  # type: ignore[arg-type]
        write_atomic(self._path(name), buffer.getvalue())

    def clear(self) -> None:
        """Removes the folder: its evaluation is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / (name.replace("/", "_").replace(":", ".") + ".npz")
