"""Digests of the files of a checkpoint: damage is found, and placed, before anything is computed with it.

``digests.json`` in a step's folder has the SHA-256 of every file, block by block, so that the damaged bytes can be told and, for
arrays, the leaves that lie there. It is written before the folder gets its final name: a complete checkpoint has it. Two small
files are made with that name and are left out; nothing is restored from them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from etils import epath

from bap_jax.atomic import json_text

DIGESTS = "digests.json"
_MADE_LAST = ("_CHECKPOINT_METADATA", "commit_success.txt")
_SEAL = "sha256"  # of everything else in digests.json
_SMALLEST_BLOCK, _MOST_BLOCKS = 1024, 1024
_LEAVES_SAID = 3


class Damage(NamedTuple):
    """Where a checkpoint is not what was written."""

    file: str  # relative to the step's folder
    what: str  # "is missing"
    leaves: tuple[str, ...] = ()  # those that have values there, as far as it can be told

    def __str__(self) -> str:
        more = len(self.leaves) - _LEAVES_SAID
        named = ", ".join(self.leaves[:_LEAVES_SAID]) + (f" and {more} more" if more > 0 else "")
        return f"{self.file} {self.what}" + (f": {named}" if named else "")


def write_digests(folder: epath.Path) -> None:
    """Write the digests of all files below a step's folder into it.

    Example:
      >>> import tempfile
      >>> folder = epath.Path(tempfile.mkdtemp())
      >>> (folder / "about").write_text("{}")
      2
      >>> write_digests(folder)
      >>> find_damage(folder)
      >>> (folder / "about").write_text("[]")
      2
      >>> str(find_damage(folder))
      'about is not what was written, in its bytes 0 to 1'
    """
    content = {"files": {name: _digest(path) for name, path in sorted(_files(folder))}}
    (folder / DIGESTS).write_text(json_text(content | {_SEAL: _seal(content)}))


def has_digests(folder: epath.Path) -> bool:
    """Whether a step's folder has digests: one that an earlier version wrote has none."""
    return (folder / DIGESTS).exists()


def find_damage(folder: epath.Path, items: Collection[str] | None = None) -> Damage | None:
    """The first file that is not what was written.

    Args:
      folder: a step's folder, with digests.
      items: look only below these folders of it.

    Returns:
      The damage, or None.
    """
    files = _read(folder)
    if files is None:
        return Damage(DIGESTS, "is damaged itself; without it, the checkpoint is read unchecked")
    for name, stored in files.items():
        if items is not None and name.partition("/")[0] not in items:
            continue
        damage = _compare(folder, name, stored)
        if damage is not None:
            return damage
    return None


def _read(folder: epath.Path) -> dict[str, dict[str, Any]] | None:
    try:
        content = json.loads((folder / DIGESTS).read_bytes())
        seal = content.pop(_SEAL)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content["files"] if seal == _seal(content) else None


def _seal(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _files(folder: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    for root, _, names in folder.walk():
        for name in names:
            path = root / name
            if root != folder or name not in (DIGESTS, *_MADE_LAST):
                yield path.relative_to(folder).as_posix(), path


def _digest(path: epath.Path, block: int | None = None) -> dict[str, Any]:
    """Length, length of a block (larger in larger files), and the digest of each."""
    if block is None:
        block, length = _SMALLEST_BLOCK, path.stat().length
        while block * _MOST_BLOCKS < length:
            block *= 2
    digests, found = [], 0
    with path.open("rb") as file:
        while content := file.read(block):
            digests.append(hashlib.sha256(content).hexdigest()[:32])
            found += len(content)
    return {"bytes": found, "block": block, "blocks": digests}


def _compare(folder: epath.Path, name: str, stored: dict[str, Any]) -> Damage | None:
    path, block = folder / name, stored["block"]
    try:
        found = _digest(path, block)
    except FileNotFoundError:
        return Damage(name, "is missing")
    except OSError as error:
        return Damage(name, f"cannot be read ({error.strerror})")
    wrong = [i for i, (a, b) in enumerate(itertools.zip_longest(stored["blocks"], found["blocks"])) if a != b]
    if not wrong:
        return None
    what = f"is not what was written, in its bytes {block * wrong[0]} to {min(block * (wrong[-1] + 1), stored['bytes']) - 1}"
    if found["bytes"] != stored["bytes"]:
        what = f"has {found['bytes']} bytes where {stored['bytes']} were written"
    return Damage(name, what, _leaves_at(folder, name, [(block * i, block * (i + 1)) for i in wrong]))


def _leaves_at(folder: epath.Path, name: str, ranges: list[tuple[int, int]]) -> tuple[str, ...]:
    """The leaves whose values lie in the ranges of a file, where tensorstore's index can still be read and says so."""
    item, _, inner = name.partition("/")
    try:
        index, leaves = _index(folder / item), _leaf_names(folder / item)
    except Exception:  # the index is what is damaged, there is none, or it is somewhere else than on this machine
        return ()
    found = [
        leaves.get(array, array)
        for array, file, start, length in index
        if file == inner and any(start < end and begin < start + length for begin, end in ranges)
    ]
    return tuple(dict.fromkeys(found))


def _index(item: epath.Path) -> list[tuple[str, str, int, int]]:
    """(array, file, offset, length) of every stored chunk of an item's arrays that is not in the index itself."""
    import tensorstore

    base = tensorstore.KvStore.open({"driver": "file", "path": f"{item}/"}).result()
    root = tensorstore.ocdbt.dump(base).result()["versions"][-1]["root"]["location"]
    found = []
    for entry in tensorstore.ocdbt.dump(base, node=root).result()["entries"]:
        if "indirect_value" in entry:
            place, start, length = entry["indirect_value"].removeprefix("value:").rsplit(":", 2)
            found.append((entry["key"].decode().rpartition("/")[0], place.replace(":", ""), int(start), int(length)))
    return found


def _leaf_names(item: epath.Path) -> dict[str, str]:
    """Name of an array in the store -> path of its leaf, as :func:`bap_jax.checkpoint.describe` has it."""
    tree = json.loads((item / "_METADATA").read_text())["tree_metadata"]
    keys = [[str(part["key"]) for part in leaf["key_metadata"]] for leaf in tree.values()]
    return {".".join(parts): "/".join(parts) for parts in keys}
