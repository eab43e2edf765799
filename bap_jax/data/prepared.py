"""Prepared TensorFlow Datasets (TFDS) in array_record format, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bap_jax.data.dataset import Dataset, Source, check, check_images, check_labels
from bap_jax.data.names import meant
from bap_jax.data.pictures import decode_image
from bap_jax.data.split import validation_rows
from bap_jax.errors import DataError, SettingError
from bap_jax.types import Bounds

Progress = Callable[[int, int], None]  # (examples done, examples in all)
_CHUNK = 512
_AGAIN = "remove its files and prepare the data set again, which names a picture that is damaged"


def data_folder(data_dir: str | None = None) -> str:
    """The folder of prepared data sets: ``data_dir``, else ``TFDS_DATA_DIR``, else TFDS' own ``~/tensorflow_datasets``.

    Example:
      >>> data_folder("/data/sets")
      '/data/sets'
    """
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSplit:
    """One split of a prepared data set whose images are read and decoded when asked for.

    It gives the same examples, in the same positions, as the data set decoded into memory.
    """

    records: Any  # a sequence of TFDS examples with the image still encoded
    rows: np.ndarray  # [N] which records belong to this split
    image_key: str
    label_key: str
    image_shape: tuple[int, ...]
    dtype: np.dtype
    num_classes: int
    name: str
    split: str
    image_size: int | None = None
    bounds: Bounds = Bounds(0.0, 1.0)
    in_memory: bool = dataclasses.field(default=False, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images ``[B, H, W, C]`` and labels ``[B]`` of these positions; raises DataError for what cannot be read."""
        positions = np.asarray(indices, np.int64)
        images = np.empty((len(positions), *self.image_shape), self.dtype)
        labels = np.empty(len(positions), np.int32)
        for place, (position, example) in enumerate(zip(positions, self._examples(positions), strict=True)):
            images[place] = self._image(example[self.image_key], int(position))
            labels[place] = example[self.label_key]
        where = f"{self.name} ({self.split})"
        check_labels(labels, self.num_classes, where)
        check_images(images, self.bounds, where)
        return images, labels

    def take(self, limit: int) -> PreparedSplit:
        """The first ``limit`` examples (all of them if there are fewer)."""
        return dataclasses.replace(self, rows=self.rows[:limit])

    def decoded(self, progress: Progress | None = None) -> Dataset:
        """The whole split, decoded into memory."""
        count = len(self)
        images, labels = np.empty((count, *self.image_shape), self.dtype), np.empty(count, np.int32)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            images[start:stop], labels[start:stop] = self.read(np.arange(start, stop))
            if progress:
                progress(stop, count)
        return Dataset(images, labels, self.num_classes, self.bounds, self.name, self.split)

    def _examples(self, positions: np.ndarray) -> Iterator[Mapping[str, Any]]:
        chosen = [int(row) for row in self.rows[positions]]
        try:
            yield from self.records.__getitems__(chosen)
        except Exception as error:  # TFDS, array_record and protobuf each raise what they like
            raise DataError(f"{self.name} ({self.split}): records cannot be read: {error}; {_AGAIN}") from error

    def _image(self, encoded: Any, position: int) -> np.ndarray:
        where = f"{self.name} ({self.split}): image {position}"
        if encoded is None:  # what array_record gives for a record of a file that was cut off
            raise DataError(f"{where} is missing from the files; {_AGAIN}")
        try:
            image = decode_image(encoded, self.image_shape[-1], self.image_size) if isinstance(encoded, bytes) else encoded
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError, ...
            raise DataError(f"{where} cannot be decoded: {error}; {_AGAIN}") from error
        if image.shape != self.image_shape:
            raise DataError(
                f"{where} has shape {list(image.shape)}, the first {list(self.image_shape)}: give image_size to resize and crop"
            )
        return image


def read_prepared(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    validation_fraction: float = 0.1,
    limit: int | None = None,
    image_size: int | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """One split of a prepared TFDS image classification data set; :func:`bap_jax.data.load_split` describes the arguments.

    Raises:
      DataError: the data set is not prepared there (with the command that prepares it), is no image classification data set, or
        cannot be read.
    """
    folder = data_folder(data_dir)
    sources = _open(name, folder, None)
    if not sources:
        raise DataError(f"data set {name!r} in {folder} has no splits; run: bap data prepare {name} --data-dir {folder}")
    first = next(iter(sources.values()))
    image_key, label_key = _keys(name, first.dataset_info)
    features = first.dataset_info.features
    wanted = (test_split or _test_split(name, sources, train_split)) if split == "test" else train_split
    source = _open(name, folder, wanted, features)
    rows = np.arange(len(source))
    if split != "test":
        shuffled = not first.dataset_info.disable_shuffling
        training, validation = validation_rows(len(source), validation_fraction, shuffled=shuffled)
        rows = training if split == "train" else validation
    feature = features[image_key]
    lazy = PreparedSplit(
        records=source,
        rows=rows[:limit],
        image_key=image_key,
        label_key=label_key,
        image_shape=_image_shape(name, feature, source, image_key, image_size),
        dtype=np.dtype(feature.np_dtype),
        num_classes=features[label_key].num_classes,
        name=name,
        split=split,
        image_size=image_size,
    )
    check(lazy)
    size = len(lazy) * int(np.prod(lazy.image_shape)) * lazy.dtype.itemsize
    return lazy.decoded(progress) if size <= (_default_limit() if memory_limit is None else memory_limit) else lazy


def _default_limit() -> int:
    """A quarter of the machine's memory, at most 8 GiB; where the images end up changes no batch."""
    return min(8 * 2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


def _test_split(name: str, sources: Mapping[str, Any], train_split: str) -> str:
    for key in ("test", "validation"):  # some data sets publish no test split
        if key in sources and key != train_split:
            return key
    raise DataError(
        f"{name}: has no test split, only {', '.join(sorted(sources))}; name parts of what there is, e.g. "
        "train_split='train[:80%]' and test_split='train[80%:]'"
    )


def _open(name: str, folder: str, split: str | None, features: Mapping[str, Any] | None = None) -> Any:
    """TFDS' random-access source of one split (a mapping of all splits for None), with the uint8 images left encoded."""
    import tensorflow_datasets as tfds  # here: `import bap_jax` must not load it

    _check_features(name, folder)
    images = [key for key in features or () if isinstance(features[key], tfds.features.Image)]  # type: ignore[index]
    # Decoding here, not in TFDS, turns palettes, grey values and alpha into the channels that the features promise.
    skip = {key: tfds.decode.SkipDecoding() for key in images if features and features[key].np_dtype == np.uint8}
    try:
        return tfds.data_source(name, split=split, data_dir=folder, download=False, decoders=skip or None)
    except ImportError as error:
        raise DataError(f"data set {name!r} cannot be opened: {error}") from error
    except Exception as error:  # "not there" comes as DatasetNotFound-, NotImplemented-, Assertion- or ValueError
        if features is not None:
            raise DataError(f"{name}: split {split!r} cannot be opened: {error}") from error
        known = "; TFDS knows no data set of this name" if isinstance(error, tfds.core.DatasetNotFoundError) else ""
        likely = meant(name)
        known += f"; did you mean {likely}?" if likely else _versions(name, folder)
        command = f"run: bap data prepare {likely or name} --data-dir {folder}, with the extra data: pip install 'bap_jax[data]'"
        command = "they come with this package: --data digits" if likely == "digits" else command
        raise DataError(f"data set {name!r} is not prepared in {folder}{known}; {command}") from error


def _check_features(name: str, folder: str) -> None:
    """Refuses features that are somebody's own code: TFDS would import whatever module a folder's ``features.json`` names."""
    from etils import epath

    root = epath.Path(folder) / re.split("[/:]", name)[0]
    for path in sorted([*root.glob("*/features.json"), *root.glob("*/*/features.json")]):
        try:
            described = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path} is no JSON ({error}); prepare the data set again") from None
        for feature in _feature_classes(described):
            if not feature.startswith("tensorflow_datasets."):
                raise DataError(f"{path} names the code {feature}; only features of TFDS itself are read")


def _feature_classes(described: Any) -> Iterator[str]:
    """The class names in a ``features.json``; before TFDS 4.4 the key was ``type``."""
    if isinstance(described, Mapping):
        for key, value in described.items():
            if key in ("pythonClassName", "type") and isinstance(value, str):
                yield value
            else:
                yield from _feature_classes(value)


def _versions(name: str, folder: str) -> str:
    """What is there under this name, if TFDS would not take it: another version, or another file format."""
    from etils import epath

    root, found = epath.Path(folder) / re.split("[/:]", name)[0], []
    for info in sorted([*root.glob("*/dataset_info.json"), *root.glob("*/*/dataset_info.json")]):
        described = json.loads(info.read_text())
        place = os.path.dirname(os.path.relpath(info, folder))
        found.append(f"{os.path.dirname(place)}:{os.path.basename(place)} as {described.get('fileFormat', 'tfrecord')}")
    return f" (there: {', '.join(found)}; array_record is needed)" if found else ""


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Which features are the image and the label."""
    import tensorflow_datasets as tfds

    features = info.features
    named = features if hasattr(features, "keys") else {}
    images = [key for key in named if isinstance(named[key], tfds.features.Image)]
    labels = [key for key in named if isinstance(named[key], tfds.features.ClassLabel)]
    supervised = info.supervised_keys or ()
    image = next((key for key in (*supervised, "image") if key in images), images[0] if len(images) == 1 else None)
    label = next((key for key in (*supervised, "label") if key in labels), labels[0] if len(labels) == 1 else None)
    if image is None or label is None:
        listed = ", ".join(f"{key}: {type(named[key]).__name__}" for key in named) or type(features).__name__
        raise DataError(f"{name}: is no image classification data set; it needs one Image and one ClassLabel and has {listed}")
    if np.dtype(named[image].np_dtype) not in (np.uint8, np.float32):
        raise DataError(f"{name}: images of dtype {np.dtype(named[image].np_dtype)} are not supported, only uint8 and float32")
    return image, label


def _image_shape(name: str, feature: Any, source: Any, image_key: str, image_size: int | None) -> tuple[int, ...]:
    channels = feature.shape[-1] or 3
    if image_size is not None:
        if image_size < 1:
            raise SettingError("image_size", image_size, "a number of pixels of at least 1")
        if np.dtype(feature.np_dtype) != np.uint8:
            raise SettingError("image_size", image_size, f"none: {name} holds float images, which are not resized")
        return (image_size, image_size, channels)
    if None not in feature.shape:
        return tuple(feature.shape)
    if not len(source):
        return (1, 1, channels)  # the check for an empty split follows
    try:
        encoded = source[0][image_key]
        return decode_image(encoded, channels).shape if isinstance(encoded, bytes) else encoded.shape
    except Exception as error:
        raise DataError(f"{name}: the first image cannot be read: {error}; {_AGAIN}") from error
