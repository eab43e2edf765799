"""A folder of pictures, in the layout of ``tfds.ImageFolder``, as a TFDS builder that can be prepared."""

from __future__ import annotations

import collections
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bap_jax.data.pictures import eight_bits, is_grey, is_transparent, open_formats, png_bytes, readable_suffixes
from bap_jax.errors import DataError

_SYSTEM = frozenset({"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})
_AS_THEY_ARE = frozenset({"PNG", "JPEG", "MPO"})  # what every reader of TFDS decodes
_SHOWN = 3  # of many names in one remark


class FolderSet(NamedTuple):
    """A folder of pictures, looked through."""

    builder: Any  # a tfds.core.GeneratorBasedBuilder
    classes: tuple[str, ...]
    num_examples: dict[str, int]  # per split
    notes: tuple[str, ...]  # what was passed over, and what is odd


def folder_name(path: str) -> str:
    """The data set's name: the folder's, in the letters that TFDS allows.

    Example:
      >>> folder_name("/pictures/Cats & Dogs")
      'cats_dogs'
    """
    name = re.sub(r"[^a-z0-9]+", "_", pathlib.Path(path).resolve().name.lower()).strip("_")
    if not name or not name[0].isalpha():
        raise DataError(f"{path}: a folder's name becomes the data set's, so it has to begin with a letter")
    return name


def image_folder_builder(path: str, data_dir: str) -> FolderSet:
    """A TFDS builder over ``path/<split>/<class>/<file>``; ``tfds.ImageFolder`` itself reads in place and cannot be prepared.

    Every picture is decoded here, whole, before anything is written. The bytes of PNG and JPEG files of 8 bits are stored as they
    are, so that neither TensorFlow nor a second compression is needed; other pictures (16 bits of grey, WebP, TIFF, BMP, ...) are
    stored as PNG of 8 bits. Classes are the folders' names in alphabetical order, over all splits. Images of one size get it as
    their shape, others ``[None, None, C]``; they have one channel if all of them are grey, else three.

    Args:
      path: the folder of pictures.
      data_dir: where TFDS data sets are written.

    Returns:
      A :class:`FolderSet`; its notes say what was left out (hidden files and folders, other kinds of files, empty classes), which
      classes a split lacks, and which pictures are transparent or hold several.

    Raises:
      DataError: the folder does not have the layout, or a file is no picture, is cut off or damaged.
    """
    import tensorflow_datasets as tfds  # here: `import bap_jax` must not load it

    splits, notes = _files(pathlib.Path(path))
    classes = sorted({label for files in splits.values() for _, label in files})
    looks = _look([file for files in splits.values() for file, _ in files], pathlib.Path(path))

    class Folder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Pictures from a folder."""

        name = folder_name(path)
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {"image": tfds.features.Image(shape=looks.shape), "label": tfds.features.ClassLabel(names=classes)}
            return tfds.core.DatasetInfo(
                builder=self,
                description="Image classification data from a folder of pictures.",
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(files) for split, files in splits.items()}

        def _generate_examples(self, files: list[tuple[pathlib.Path, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
            for file, label in files:
                yield f"{label}/{file.name}", {"image": _stored(file), "label": label}

    builder = Folder(data_dir=data_dir, file_format="array_record")
    return FolderSet(builder, tuple(classes), {split: len(files) for split, files in splits.items()}, (*notes, *looks.notes))


class _Looks(NamedTuple):
    shape: tuple[int | None, int | None, int]
    notes: tuple[str, ...]


def _files(root: pathlib.Path) -> tuple[dict[str, list[tuple[pathlib.Path, str]]], list[str]]:
    """The pictures of every split with their classes, and a remark on each kind of thing that was passed over."""
    splits: dict[str, list[tuple[pathlib.Path, str]]] = {}
    left: dict[str, list[str]] = {kind: [] for kind in ("hidden", "outside", "deeper", "other", "empty", "empty splits")}
    suffixes = readable_suffixes()

    def inside(folder: pathlib.Path) -> list[pathlib.Path]:
        seen: list[pathlib.Path] = []
        hidden: list[pathlib.Path] = []
        for entry in sorted(folder.iterdir()):
            (hidden if _is_hidden(entry.name) else seen).append(entry)
        left["hidden"] += [_told(entry, root) for entry in hidden]
        return seen

    for split in inside(root):
        if not split.is_dir():
            left["outside"].append(_told(split, root))
            continue
        files: list[tuple[pathlib.Path, str]] = []
        for label in inside(split):
            if not label.is_dir():
                left["outside"].append(_told(label, root))
                continue
            found = len(files)
            for file in inside(label):
                if file.is_dir():
                    left["deeper"].append(_told(file, root))
                elif file.suffix.lower() in suffixes:
                    files.append((file, label.name))
                else:
                    left["other"].append(_told(file, root))
            if len(files) == found:
                left["empty"].append(_told(label, root))
        if files:
            splits[split.name] = files
        else:
            left["empty splits"].append(split.name)
    if not splits:
        raise DataError(f"{root}: holds no pictures as <split>/<class>/<file>.png (or .jpg, .webp, ...), e.g. train/cat/1.png")
    kinds = collections.Counter(pathlib.Path(name).suffix.lower() or "without a suffix" for name in left["other"])
    said = {
        "hidden": "hidden files or folders were left out",
        "outside": "files outside <split>/<class>/ were left out",
        "deeper": "folders inside class folders were left out",
        "other": f"files of other kinds were left out ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})",
        "empty": "class folders hold no pictures",
        "empty splits": "splits hold no pictures and were left out",
    }
    notes = [f"{len(names)} {said[kind]}: {_few(names)}" for kind, names in left.items() if names]
    return splits, [*notes, *_lacking(splits)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM or name in _SYSTEM_FILES


def _told(path: pathlib.Path, root: pathlib.Path) -> str:
    return str(path.relative_to(root))


def _few(names: Iterable[str]) -> str:
    """The first of them, and how many more there are.

    Example:
      >>> _few("abcde")
      'a, b, c and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _lacking(splits: dict[str, list[tuple[pathlib.Path, str]]]) -> list[str]:
    """Which classes of other splits a split has no picture of."""
    has = {split: {label for _, label in files} for split, files in splits.items()}
    every = set().union(*has.values())
    return [
        f"{split} has no pictures of {len(every - labels)} of {len(every)} classes: {_few(sorted(every - labels))}"
        for split, labels in has.items()
        if every - labels
    ]


def _look(files: list[pathlib.Path], root: pathlib.Path) -> _Looks:
    """Decodes every picture: their common shape, and remarks on those that are odd."""
    from PIL import Image

    sizes, grey = set(), True
    transparent: list[str] = []
    several: list[str] = []
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd metadata; what is cut off or damaged is an error
                with Image.open(file, formats=open_formats()) as picture:
                    frames = getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1
                    picture.load()
                    eight_bits(picture)
                    sizes.add(picture.size)
                    grey = grey and is_grey(picture)
                    transparent += [_told(file, root)] if is_transparent(picture) else []
                    several += [_told(file, root)] if frames > 1 else []
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError, struct.error, ...
            raise DataError(f"{file}: is no readable picture, or is cut off or damaged: {error}") from error
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    notes = []
    if transparent:
        notes.append(f"{len(transparent)} pictures are transparent in places and show what is stored there: {_few(transparent)}")
    if several:
        notes.append(f"{len(several)} files hold several pictures, of which the first is taken: {_few(several)}")
    return _Looks((height, width, 1 if grey else 3), tuple(notes))


def _stored(file: pathlib.Path) -> bytes:
    """The bytes of the file where every reader decodes them to 8 bits, else those of a PNG that it does."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=open_formats()) as picture:
            if picture.format in _AS_THEY_ARE and not picture.mode.startswith("I"):
                return file.read_bytes()
            return png_bytes(picture)
