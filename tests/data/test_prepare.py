"""Preparing: a folder of pictures and local builders without TensorFlow; what needs TensorFlow is skipped where there is none."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image

from bap_jax.data import load, prepare
from bap_jax.errors import DataError

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed (pip install 'bap_jax[data]'): preparing through TFDS' own encoders is NOT tested here",
)

BUILDERS = '''
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


class Stripes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten images whose value is ten times their number; the label is its parity."""

    VERSION = tfds.core.Version("1.0.0")
    as_array = False

    def _info(self):
        features = {"picture": tfds.features.Image(shape=(3, 3, 3)), "parity": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(10):
            picture = np.full((3, 3, 3), 10 * number, np.uint8)
            yield number, {"picture": picture if self.as_array else encoded(picture), "parity": number % 2}


class Arrays(Stripes, skip_registration=True):
    """The same, handing TFDS arrays, which it encodes with TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    as_array = True


class Unreachable(Stripes, skip_registration=True):
    """A builder whose files have to be put there by hand."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Fetch the pictures by hand."

    def _split_generators(self, dl_manager):
        return {"train": dl_manager.manual_dir}
'''


@pytest.fixture
def builders(tmp_path, monkeypatch) -> str:
    (tmp_path / "builders_for_test_prepare.py").write_text(BUILDERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "builders_for_test_prepare"


def test_a_folder_of_pictures(prepared):
    folder, said = prepared
    assert said.name == "pets"
    assert said.path == f"{folder}/pets/1.0.0"
    assert said.num_examples == {"train": 20, "test": 5}


def test_preparing_again_changes_nothing(prepared, pictures):
    folder, said = prepared
    before = {file: file.stat().st_mtime_ns for file in pathlib.Path(said.path).iterdir()}
    assert prepare(str(pictures), folder) == said
    assert {file: file.stat().st_mtime_ns for file in pathlib.Path(said.path).iterdir()} == before


def check_stripes(folder: str, name: str) -> None:
    splits = load(name, data_dir=folder, train_split="train[:80%]", test_split="train[80%:]", validation_fraction=0.25)
    assert [len(split) for split in splits] == [6, 2, 2]
    values = np.concatenate([split.images[:, 0, 0, 0] for split in splits])
    assert sorted(values) == [10 * number for number in range(10)]
    assert np.concatenate([split.labels for split in splits]).tolist() == [value // 10 % 2 for value in values]
    with pytest.raises(DataError, match="has no test split, only train; name parts of what there is"):
        load(name, data_dir=folder)


def test_a_local_builder(builders, tmp_path):
    said = prepare(f"{builders}:Stripes", str(tmp_path / "data"))
    assert said.num_examples == {"train": 10}
    check_stripes(str(tmp_path / "data"), said.name)


@needs_tensorflow
def test_a_local_builder_that_hands_over_arrays(builders, tmp_path):
    check_stripes(str(tmp_path / "data"), prepare(f"{builders}:Arrays", str(tmp_path / "data")).name)


@needs_tensorflow
def test_the_folder_agrees_with_tfds_image_folder(prepared, pictures):
    import tensorflow_datasets as tfds

    theirs = tfds.ImageFolder(str(pictures))
    ours = load("pets", data_dir=prepared[0])
    seen = {(image.tobytes(), int(label)) for split in ours for image, label in zip(split.images, split.labels, strict=True)}
    expected = {
        (example["image"].tobytes(), int(example["label"]))
        for split in ("train", "test")
        for example in tfds.as_numpy(theirs.as_dataset(split))
    }
    assert seen == expected


@needs_tensorflow
def test_files_in_another_format_are_in_the_way(builders, tmp_path):
    getattr(importlib.import_module(builders), "Arrays")(data_dir=str(tmp_path)).download_and_prepare()  # noqa: B009
    with pytest.raises(DataError, match="holds it in another format than array_record: remove it there"):
        prepare(f"{builders}:Arrays", str(tmp_path))
    with pytest.raises(DataError, match=r"there: arrays:1\.0\.0 as tfrecord; array_record is needed"):
        load("arrays", data_dir=str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_without_tensorflow_the_extra_is_named(builders, tmp_path):
    with pytest.raises(DataError, match=r"needs the module tensorflow: pip install 'bap_jax\[data\]'"):
        prepare(f"{builders}:Arrays", str(tmp_path))


def test_files_to_fetch_by_hand(builders, tmp_path):
    with pytest.raises(DataError, match=r"(?s)cannot be prepared in .*Fetch the pictures by hand"):
        prepare(f"{builders}:Unreachable", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_set", "TFDS knows no data set of this name"),
        ("./no/such/folder", "no such folder"),
        ("no_such_module:Builder", "No module named 'no_such_module'"),
        ("math:floor", "is no TFDS builder class"),
    ],
)
def test_a_name_that_means_nothing(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        prepare(name, str(tmp_path))


def test_a_folder_in_another_layout(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (2, 2)).save(flat / "1.png")
    with pytest.raises(DataError, match=r"holds no pictures as <split>/<class>/<file>\.png"):
        prepare(str(flat), str(tmp_path / "data"))


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "bad" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "train" / "cat" / "1.png").write_text("meow")
    with pytest.raises(DataError, match=r"1\.png: is no readable picture"):
        prepare(str(tmp_path / "bad"), str(tmp_path / "data"))


def test_pictures_of_differing_sizes_and_colours(tmp_path):
    sizes = {("train", "a"): [(4, 4), (5, 6)] * 3, ("test", "b"): [(7, 4)], ("train", "b"): [(4, 4)]}
    for (split, label), shapes in sizes.items():
        (tmp_path / "mixed" / split / label).mkdir(parents=True)
        for number, size in enumerate(shapes):
            mode = "L" if number % 2 else "RGB"
            Image.new(mode, size, 90 if mode == "L" else (90, 90, 90)).save(tmp_path / "mixed" / split / label / f"{number}.png")
    name = prepare(str(tmp_path / "mixed"), str(tmp_path / "data")).name
    with pytest.raises(DataError, match="give image_size to resize and crop"):
        load(name, data_dir=str(tmp_path / "data"))
    splits = load(name, data_dir=str(tmp_path / "data"), image_size=3)
    assert [len(split) for split in splits] == [6, 1, 1]
    assert all(split.image_shape == (3, 3, 3) and (split.images == 90).all() for split in splits)
