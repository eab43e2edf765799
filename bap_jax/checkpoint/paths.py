"""Paths as they are spelt: a folder's name is never read as a pattern or as an address."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

from etils import epath
from etils.epath.gpath import PosixGPath


@epath.register_path_cls  # so that epath.Path() hands it on as it is
class LocalPath(PosixGPath):
    """A path of this machine for orbax, which looks for files below it by ``glob``.

    etils globs over the whole path: below ``run[seed=1]`` it finds nothing, ``a**b`` it refuses, and ``/gs/runs`` it takes for an
    address. Here only the pattern is one.

    Example:
      >>> import tempfile
      >>> folder = LocalPath(tempfile.mkdtemp()) / "run[seed=1]"
      >>> (folder / "a").mkdir(parents=True)
      >>> [path.name for path in epath.Path(folder).glob("*")]
      ['a']
    """

    def glob(self, pattern: str) -> Iterator[LocalPath]:
        """The files below this folder that the pattern fits."""
        return (type(self)(os.fspath(found)) for found in pathlib.Path(os.fspath(self)).glob(pattern))

    @property
    def _uri_scheme(self) -> None:
        return None


def absolute(folder: str | os.PathLike[str]) -> epath.Path:
    """A folder as orbax takes it: an address such as ``gs://bucket/x``, or an absolute path.

    A relative one would fail late, in orbax's background thread.
    """
    text = os.fspath(folder)
    return epath.Path(text) if "://" in text else LocalPath(os.path.abspath(os.path.expanduser(text)))
