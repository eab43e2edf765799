"""Reading prepared TFDS data without TensorFlow: exact pixels, splits, streaming, and every way in which it can be unfit."""

import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bap_jax.data import Dataset, PreparedSplit, load, load_split, statistics, stream_batches, train_batches
from bap_jax.data.pictures import decode_image
from bap_jax.data.prepared import data_folder
from bap_jax.errors import DataError, SettingError


def test_pixels_and_labels_are_those_of_the_files(prepared, pictures):
    folder, _ = prepared
    splits = load("pets", data_dir=folder, validation_fraction=0.2)
    assert [len(split) for split in splits] == [16, 4, 5]
    assert [split.num_classes for split in splits] == [3, 3, 3]
    seen = []
    for dataset, source in zip(splits, ("train", "train", "test"), strict=True):
        assert isinstance(dataset, Dataset)
        assert (dataset.images.dtype, dataset.image_shape) == (np.uint8, (5, 4, 3))
        for image, label in zip(dataset.images, dataset.labels, strict=True):
            kind, number, _ = image[0, 0]
            assert kind == label
            file = pictures / source / ["cat", "dog", "emu"][kind] / f"{number}.png"
            np.testing.assert_array_equal(image, np.asarray(Image.open(file)))
            seen.append(file)
    assert len(set(seen)) == len(seen) == 25  # every picture once: the splits share nothing and lose nothing


def test_train_and_validation_are_the_slices_that_tfds_would_take(prepared):
    folder, _ = prepared
    splits = load("pets", data_dir=folder)
    sliced = load_split("pets", "test", data_dir=folder, test_split="train[90%:]")
    np.testing.assert_array_equal(splits.validation.read([0, 1])[0], sliced.read([0, 1])[0])
    assert (len(splits.train), len(splits.validation), len(sliced)) == (18, 2, 2)


def test_limit_is_taken_after_validation_is_set_apart(prepared):
    folder, _ = prepared
    whole, some = load("pets", data_dir=folder), load("pets", data_dir=folder, limit=3)
    assert [len(split) for split in some] == [3, 2, 3]
    np.testing.assert_array_equal(some.train.read([0, 1, 2])[0], whole.train.read([0, 1, 2])[0])
    np.testing.assert_array_equal(some.validation.read([0, 1])[0], whole.validation.read([0, 1])[0])


def test_progress_counts_to_the_end(prepared):
    calls = []
    load_split("pets", "train", data_dir=prepared[0], progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (18, 18)


def test_the_environment_names_the_folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", prepared[0])
    assert len(load_split("pets", "test")) == 5
    assert data_folder("/elsewhere") == "/elsewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_folder().endswith("/tensorflow_datasets")


def test_what_does_not_fit_is_streamed_and_gives_the_same_batches(prepared):
    folder, _ = prepared
    settings = {"seed": 4, "batch_size": 4, "start_step": 2, "stop_step": 9}
    in_memory = load_split("pets", "train", data_dir=folder)
    streamed = load_split("pets", "train", data_dir=folder, memory_limit=18 * 60 - 1)
    assert isinstance(in_memory, Dataset)
    assert isinstance(streamed, PreparedSplit)
    assert not streamed.in_memory
    pairs = [
        zip(train_batches(in_memory, **settings), train_batches(streamed, **settings), strict=True),
        zip(train_batches(in_memory, **settings), stream_batches(streamed, threads=2, **settings), strict=True),
    ]
    for one, two in (pair for both in pairs for pair in both):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)
    assert isinstance(load_split("pets", "train", data_dir=folder, memory_limit=18 * 60), Dataset)
    assert len(streamed.take(4)) == 4


def test_image_size_resizes_and_crops(prepared):
    dataset = load_split("pets", "test", data_dir=prepared[0], image_size=2)
    assert dataset.image_shape == (2, 2, 3)
    with pytest.raises(SettingError, match="image_size = 0"):
        load_split("pets", "test", data_dir=prepared[0], image_size=0)


def test_reading_loads_no_tensorflow_and_importing_loads_nothing(prepared):
    code = (
        "import sys, bap_jax.data as data\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'grain'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"assert len(data.load_split('pets', 'test', data_dir={prepared[0]!r})) == 5\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---------------------------------------------------------------------------------------------------------------- decoding


def png(array: np.ndarray, mode: str | None = None, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(buffer, form)
    return buffer.getvalue()


def test_decoding_gives_the_channels_that_were_promised():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode_image(png(grey), 1)[..., 0], grey)
    np.testing.assert_array_equal(decode_image(png(grey), 3), np.repeat(grey[..., None], 3, -1))
    colour = np.zeros((3, 4, 3), np.uint8)
    colour[..., 0], colour[1] = 255, (0, 0, 255)
    np.testing.assert_array_equal(decode_image(png(colour, "P"), 3), colour)  # a palette is looked up, not read as grey
    np.testing.assert_array_equal(decode_image(png(colour, "RGBA"), 3), colour)


def test_decoding_cuts_out_the_middle_square():
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200
    np.testing.assert_array_equal(decode_image(png(wide), 3, image_size=4), np.full((4, 4, 3), 200))
    assert decode_image(png(np.zeros((7, 3, 3), np.uint8)), 3, image_size=5).shape == (5, 5, 3)


# ------------------------------------------------------------------------------------------------------------------ errors


def test_an_absent_data_set_names_the_command(tmp_path):
    for name in ("mnist", "no_such_set"):
        with pytest.raises(DataError, match=f"{name}' is not prepared in .*run: bap data prepare {name} --data-dir {tmp_path}"):
            load(name, data_dir=str(tmp_path))
    with pytest.raises(DataError, match="bap data prepare mnist --data-dir"):
        load("mnist", data_dir=str(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_another_version_is_pointed_out(prepared):
    with pytest.raises(DataError, match=r"there: pets:1\.0\.0 as array_record"):
        load("pets:2.0.0", data_dir=prepared[0])


def test_an_unknown_split_is_named(prepared):
    with pytest.raises(DataError, match="split 'evaluation' cannot be opened"):
        load("pets", data_dir=prepared[0], test_split="evaluation")
    with pytest.raises(SettingError, match="split = 'dev': expected one of train, validation, test"):
        load_split("pets", "dev", data_dir=prepared[0])  # type: ignore[arg-type]


@pytest.fixture
def copy(prepared, tmp_path) -> pathlib.Path:
    """A copy of the prepared data set that a test may spoil."""
    shutil.copytree(prepared[0], tmp_path / "copy")
    return tmp_path / "copy" / "pets" / "1.0.0"


def spoil(path: pathlib.Path, how) -> None:
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize(
    "how",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:150] + bytes(100) + data[250:]],
    ids=["cut off", "empty", "overwritten"],
)
def test_damaged_records(copy, how):
    spoil(copy / "pets-train.array_record-00000-of-00001", how)
    with pytest.raises(DataError, match="prepare the data set again"):
        load("pets", data_dir=str(copy.parents[1]))


def test_a_missing_record_file(copy):
    (copy / "pets-test.array_record-00000-of-00001").unlink()
    assert len(load_split("pets", "train", data_dir=str(copy.parents[1]))) == 18  # train can be read all the same
    with pytest.raises(DataError, match="prepare the data set again"):
        load_split("pets", "test", data_dir=str(copy.parents[1]))


def change_features(copy: pathlib.Path, change) -> None:
    path = copy / "features.json"
    described = json.loads(path.read_text())
    change(described["featuresDict"]["features"])
    path.write_text(json.dumps(described))


def test_labels_out_of_range(copy):
    change_features(copy, lambda features: features["label"]["classLabel"].update(numClasses="2"))
    (copy / "label.labels.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"label 2 of example \d+ lies outside \[0, 1\]"):
        load("pets", data_dir=str(copy.parents[1]))


def test_no_image_classification_data(copy):
    change_features(copy, lambda features: features.pop("label"))
    with pytest.raises(
        DataError, match="no image classification data set; it needs one Image and one ClassLabel and has image: Image"
    ):
        load("pets", data_dir=str(copy.parents[1]))


def test_images_of_differing_sizes(copy):
    change_features(copy, lambda features: features["image"]["image"]["shape"].update(dimensions=["4", "5", "3"]))
    with pytest.raises(DataError, match=r"has shape \[5, 4, 3\].*give image_size"):
        load("pets", data_dir=str(copy.parents[1]))


# --------------------------------------------------------------------------------------------------------------- real data

MEANS = {  # train mean, train std, test mean, test std of the original data after / 255
    "mnist": ([0.13066], [0.30811], [0.13251], [0.31048]),
    "cifar10": (
        [0.49140, 0.48216, 0.44653],
        [0.24703, 0.24349, 0.26159],
        [0.49421, 0.48513, 0.45041],
        [0.24665, 0.24289, 0.26159],
    ),
}
COUNTS = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "cifar10": ([5000] * 10, [1000] * 10),
}
FIRST = {"mnist": [4, 1, 0, 7, 8, 1, 2, 7, 1, 6], "cifar10": [7, 8, 4, 4, 6, 5, 2, 9, 6, 6]}


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_real_data(test_data_dir, name):
    splits = load(name, data_dir=test_data_dir)
    numbers = [statistics(split) for split in splits]
    assert [number.num_examples for number in numbers] == {"mnist": [54_000, 6_000, 10_000], "cifar10": [45_000, 5_000, 10_000]}[
        name
    ]
    np.testing.assert_array_equal(splits.train.read(range(10))[1], FIRST[name])
    np.testing.assert_array_equal(numbers[0].label_counts + numbers[1].label_counts, COUNTS[name][0])
    np.testing.assert_array_equal(numbers[2].label_counts, COUNTS[name][1])
    weights = np.array([number.num_examples for number in numbers[:2]])[:, None] / (
        weights_total := len(splits.train) + len(splits.validation)
    )
    assert weights_total in (60_000, 50_000)
    mean = sum(weight * number.mean for weight, number in zip(weights, numbers, strict=False))
    second = sum(weight * (number.std**2 + number.mean**2) for weight, number in zip(weights, numbers, strict=False))
    for value, expected in zip((mean, np.sqrt(second - mean**2), numbers[2].mean, numbers[2].std), MEANS[name], strict=True):
        np.testing.assert_allclose(value, expected, atol=1.01e-5)


@pytest.mark.data
def test_real_data_streamed_equals_memory(test_data_dir):
    in_memory = load_split("cifar10", "train", data_dir=test_data_dir, limit=300)
    streamed = load_split("cifar10", "train", data_dir=test_data_dir, limit=300, memory_limit=0)
    settings = {"seed": 0, "batch_size": 128, "start_step": 1, "stop_step": 4}
    for one, two in zip(train_batches(in_memory, **settings), train_batches(streamed, **settings), strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)
