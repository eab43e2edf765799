"""Prepare a TFDS data set in the format that is read here: array_record."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from bap_jax.data.folder import FolderSet, image_folder_builder
from bap_jax.data.names import meant
from bap_jax.data.prepared import data_folder
from bap_jax.errors import DataError
from bap_jax.plugins import import_object, is_import_path


class Prepared(NamedTuple):
    """A prepared data set: the name that reads it, and where it lies."""

    name: str  # what `--data` takes
    path: str
    num_examples: dict[str, int]  # per split
    notes: tuple[str, ...] = ()  # what of a folder was left out, or is odd


def prepare(name: str, data_dir: str | None = None) -> Prepared:
    """Write a data set as TFDS array_record files; does nothing if they are there.

    Three things can be prepared:

    - a data set that TFDS registers (``mnist``, ``name/config``): TFDS downloads and converts it, which needs the ``data`` extra;
    - a folder of pictures in the layout of ``tfds.ImageFolder``, ``folder/<split>/<class>/<file>``, in any form of
      :data:`bap_jax.data.pictures.FORMATS`; every picture is decoded, and what is passed over is noted;
    - ``package.module:Builder``, a ``tfds.core.GeneratorBasedBuilder`` of your own.

    The last two need TensorFlow only if the builder itself hands TFDS arrays instead of encoded images.

    Args:
      name: a TFDS name, a folder, or an import path.
      data_dir: where to write; else ``TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.

    Returns:
      Prepared.

    Raises:
      DataError: TFDS knows no such data set, the folder does not have the layout, TensorFlow is missing, files in another
        format lie in the way, a download failed, a picture is cut off or damaged, or a folder is no longer what was prepared.
    """
    folder = data_folder(data_dir)
    try:
        found = _builder(name, folder)
        builder = found.builder if isinstance(found, FolderSet) else found
        builder.download_and_prepare(file_format="array_record")
    except DataError:
        raise
    except ImportError as error:
        missing = _missing_module(error)
        package = {"tensorflow": "'bap_jax[data]'"}.get(missing, missing)
        raise DataError(f"preparing {name} needs the module {missing}: pip install {package}") from error
    except Exception as error:  # no network, files to download by hand, an example that TFDS refuses, a full disk
        hint = ""
        if "format is already set" in str(error):
            hint = f"; {folder} holds it in another format than array_record: remove it there, or give another --data-dir"
        raise DataError(f"{name} cannot be prepared in {folder}: {type(error).__name__}: {error}{hint}") from error
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    path = os.fspath(builder.data_dir)
    if not isinstance(found, FolderSet):
        return Prepared(_reading_name(builder), path, counts)
    with open(os.path.join(path, "label.labels.txt"), encoding="utf-8") as file:  # as stored; the builder has those of today
        classes = tuple(file.read().splitlines())
    if counts != found.num_examples or classes != found.classes:
        raise DataError(f"{name} is not what was prepared in {path} any more: remove {path} to prepare it again")
    return Prepared(_reading_name(builder), path, counts, found.notes)


def _builder(name: str, folder: str) -> Any:
    import tensorflow_datasets as tfds  # here: `import bap_jax` must not load it

    if os.path.isdir(os.path.expanduser(name)) and (os.sep in name or not _registered(name)):
        return image_folder_builder(os.path.expanduser(name), folder)
    if is_import_path(name):
        builder = import_object("name", name)
        if not (isinstance(builder, type) and issubclass(builder, tfds.core.DatasetBuilder)):
            raise DataError(f"{name}: is no TFDS builder class (a subclass of tfds.core.GeneratorBasedBuilder)")
        return builder(data_dir=folder, file_format="array_record")
    if os.sep in os.path.expanduser(name) and not _registered(name):
        raise DataError(f"{name}: no such folder, and TFDS knows no data set of this name")
    try:
        return tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        likely = meant(name)
        hint = f"did you mean {likely}?" if likely else "see tfds.list_builders()"
        raise DataError(f"{name}: TFDS knows no data set of this name, there is no folder of this name; {hint}") from error


def _missing_module(error: BaseException) -> str:
    """The module's name; TFDS and its lazy imports wrap the original error, which alone has it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name.split(".")[0]
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _registered(name: str) -> bool:
    import tensorflow_datasets as tfds

    return re.split("[/:]", name)[0] in tfds.list_builders(with_community_datasets=False)


def _reading_name(builder: Any) -> str:
    return builder.name + (f"/{builder.builder_config.name}" if builder.builder_config else "")
