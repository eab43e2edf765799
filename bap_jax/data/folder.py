"""A folder of pictures, in the layout of ``tfds.ImageFolder``, as a TFDS builder that can be prepared."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from bap_jax.errors import DataError

_SUFFIXES = (".png", ".jpg", ".jpeg")


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


def image_folder_builder(path: str, data_dir: str) -> Any:
    """A TFDS builder over ``path/<split>/<class>/<file>``; ``tfds.ImageFolder`` itself reads in place and cannot be prepared.

    The files' bytes are stored as they are, so that neither TensorFlow nor a second compression is needed. Classes are the
    folders' names in alphabetical order, over all splits. Images of one size get it as their shape, others ``[None, None, C]``;
    they have one channel if all of them are grey, else three.

    Args:
      path: the folder of pictures.
      data_dir: where TFDS data sets are written.

    Returns:
      A ``tfds.core.GeneratorBasedBuilder``.

    Raises:
      DataError: the folder does not have the layout, or a file is no picture.
    """
    import tensorflow_datasets as tfds  # here: `import bap_jax` must not load it

    splits = _files(pathlib.Path(path))
    classes = sorted({label for files in splits.values() for _, label in files})
    shape = _shape([file for files in splits.values() for file, _ in files])

    class Folder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        """Pictures from a folder."""

        name = folder_name(path)
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=classes)}
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
                yield f"{label}/{file.name}", {"image": file.read_bytes(), "label": label}

    return Folder(data_dir=data_dir, file_format="array_record")


def _files(root: pathlib.Path) -> dict[str, list[tuple[pathlib.Path, str]]]:
    splits = {}
    for split in sorted(folder for folder in root.iterdir() if folder.is_dir()):
        labels = sorted(folder for folder in split.iterdir() if folder.is_dir())
        files = [(file, label.name) for label in labels for file in sorted(label.iterdir()) if file.suffix.lower() in _SUFFIXES]
        if files:
            splits[split.name] = files
    if not splits:
        raise DataError(f"{root}: holds no pictures as <split>/<class>/<file>.png (or .jpg, .jpeg), e.g. train/cat/1.png")
    return splits


def _shape(files: list[pathlib.Path]) -> tuple[int | None, int | None, int]:
    from PIL import Image

    sizes, grey = set(), True
    for file in files:
        try:
            with Image.open(file) as picture:
                picture.verify()
                sizes.add(picture.size)
                grey = grey and picture.mode in ("1", "L")
        except (OSError, SyntaxError) as error:
            raise DataError(f"{file}: is no readable picture: {error}") from error
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, 1 if grey else 3
