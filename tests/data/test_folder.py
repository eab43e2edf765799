"""A folder of pictures: what is passed over is said, what is damaged is named, and any picture that can be read is."""

import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bap_jax.data import load, load_split, prepare
from bap_jax.data.folder import image_folder_builder
from bap_jax.errors import DataError

GENERATOR = np.random.default_rng(0)


def put(path: pathlib.Path, picture=None, **options) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = GENERATOR.integers(0, 256, (8, 8, 3)).astype(np.uint8) if picture is None else picture
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path) -> pathlib.Path:
    root = tmp_path / "pets"
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for number in range(2):
                put(root / split / label / f"{number}.png")
    return root


def looked(root: pathlib.Path):
    return image_folder_builder(str(root), str(root.parent / "data"))


def test_a_plain_folder_has_no_notes(pets):
    found = looked(pets)
    assert (found.classes, found.num_examples, found.notes) == (("cat", "dog"), {"train": 4, "test": 4}, ())


def test_hidden_things_are_no_classes_no_splits_and_no_pictures(pets):
    for place in ("train/.ipynb_checkpoints/0.png", ".git/dog/0.png", "__MACOSX/dog/0.png", "train/@eaDir/0.png"):
        put(pets / place)
    (pets / "train" / "cat" / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    (pets / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (pets / "test" / "dog" / "Thumbs.db").write_bytes(b"x")
    found = looked(pets)
    assert (found.classes, found.num_examples) == (("cat", "dog"), {"train": 4, "test": 4})
    (note,) = found.notes
    assert note == "7 hidden files or folders were left out: .git, __MACOSX, test/dog/Thumbs.db and 4 more"


def test_what_is_passed_over_is_counted_and_said(pets):
    (pets / "train" / "bird").mkdir()
    (pets / "dev" / "cat").mkdir(parents=True)
    (pets / "labels.csv").write_text("x")
    put(pets / "train" / "0.png")
    put(pets / "train" / "cat" / "more" / "0.png")
    for name in ("notes.txt", "raw.heic", "other.heic", "none"):
        (pets / "train" / "cat" / name).write_bytes(b"x")
    found = looked(pets)
    assert (found.classes, found.num_examples) == (("cat", "dog"), {"train": 4, "test": 4})
    assert found.notes == (
        "2 files outside <split>/<class>/ were left out: labels.csv, train/0.png",
        "1 folders inside class folders were left out: train/cat/more",
        "4 files of other kinds were left out (2 .heic, 1 .txt, 1 without a suffix): "
        "train/cat/none, train/cat/notes.txt, train/cat/other.heic and 1 more",
        "2 class folders hold no pictures: dev/cat, train/bird",
        "1 splits hold no pictures and were left out: dev",
    )


def test_classes_of_one_split_only_are_said(pets):
    put(pets / "test" / "ant" / "0.png")
    for number in range(5):
        put(pets / "train" / f"x{number}" / "0.png")
    found = looked(pets)
    assert found.classes == ("ant", "cat", "dog", "x0", "x1", "x2", "x3", "x4")
    assert found.notes == (
        "test has no pictures of 5 of 8 classes: x0, x1, x2 and 2 more",
        "train has no pictures of 1 of 8 classes: ant",
    )


def test_transparent_and_several_pictures_are_said(pets):
    put(pets / "train" / "cat" / "clear.png", Image.new("RGBA", (8, 8), (9, 9, 9, 0)))
    put(pets / "train" / "cat" / "opaque.png", Image.new("RGBA", (8, 8), (9, 9, 9, 255)))
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    put(pets / "train" / "dog" / "film.gif", frames[0], save_all=True, append_images=frames[1:])
    assert looked(pets).notes == (
        "1 pictures are transparent in places and show what is stored there: train/cat/clear.png",
        "1 files hold several pictures, of which the first is taken: train/dog/film.gif",
    )


def test_pictures_of_every_form_are_read_and_sixteen_bits_scaled(tmp_path):
    root, ramp = tmp_path / "ramps", np.linspace(0, 65535, 8).astype(np.uint16).reshape(2, 4)
    eight = np.array([0, 36, 73, 109, 146, 182, 219, 255], np.uint8).reshape(2, 4)
    for number, (suffix, picture, options) in enumerate(
        [
            ("png", ramp, {}),
            ("tiff", ramp, {}),
            ("pgm", ramp, {}),
            ("bmp", eight, {}),
            ("TIF", eight, {}),
            ("png", eight, {}),
            ("png", np.stack([eight, np.full_like(eight, 255)], -1), {}),
        ]
    ):
        put(root / "train" / "a" / f"{number}.{suffix}", picture, **options)
        put(root / "test" / "b" / f"{number}.{suffix}", picture, **options)
    said = prepare(str(root), str(tmp_path / "data"))
    assert said.num_examples == {"train": 7, "test": 7}
    assert said.notes == ("test has no pictures of 1 of 2 classes: a", "train has no pictures of 1 of 2 classes: b")
    test = load("ramps", data_dir=str(tmp_path / "data")).test
    assert test.image_shape == (2, 4, 1) and len(test) == 7
    for image in test.read(range(7))[0]:
        np.testing.assert_array_equal(image[..., 0], eight)


def test_webp_is_read_where_pillow_can(pets):
    from PIL import features

    if not features.check("webp"):
        pytest.skip("this Pillow reads no WebP")
    put(pets / "train" / "cat" / "2.webp", lossless=True)
    assert looked(pets).num_examples["train"] == 5


def broken_chunk(path: pathlib.Path, mend_checksum: bool) -> None:
    """Zeroes in the compressed data of a PNG; with a checksum that fits, only decoding sees them."""
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT")
    (size,) = struct.unpack(">I", content[start - 4 : start])
    content[start + 104 : start + 164] = bytes(60)
    if mend_checksum:
        content[start + 4 + size : start + 8 + size] = struct.pack(">I", zlib.crc32(bytes(content[start : start + 4 + size])))
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("form", ["jpg", "png", "bmp", "tiff", "gif"])
def test_a_picture_that_is_cut_off_is_named(form, pets):
    file = put(pets / "train" / "cat" / f"cut.{form}", GENERATOR.integers(0, 256, (32, 32, 3)).astype(np.uint8))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * 0.6)])
    with pytest.raises(DataError, match=rf"train/cat/cut\.{form}: is no readable picture, or is cut off or damaged"):
        prepare(str(pets), str(pets.parent / "data"))
    assert not (pets.parent / "data").exists()


@pytest.mark.parametrize("mend_checksum", [False, True])
def test_a_damaged_chunk_is_named(mend_checksum, pets):
    file = put(pets / "train" / "cat" / "bad.png", GENERATOR.integers(0, 256, (32, 32, 3)).astype(np.uint8))
    broken_chunk(file, mend_checksum)
    with pytest.raises(DataError, match=r"bad\.png: is no readable picture, or is cut off or damaged"):
        looked(pets)


@pytest.mark.parametrize(
    ("picture", "told"), [(np.ones((8, 8), np.float32), "mode F, whose white"), (Image.new("LAB", (8, 8)), "LAB colours")]
)
def test_a_picture_without_a_known_white_is_named(picture, told, pets):
    put(pets / "train" / "cat" / "odd.tiff", picture)
    with pytest.raises(DataError, match=rf"odd\.tiff: .*{told}"):
        looked(pets)


def test_a_program_is_no_picture(pets, monkeypatch):
    """PostScript is drawn by another program: it is not opened, whatever its suffix says."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **options: started.append(given))
    (pets / "train" / "cat" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")
    with pytest.raises(DataError, match=r"x\.png: is no readable picture"):
        looked(pets)
    assert not started


def test_a_folder_that_changed_is_not_taken_for_the_prepared_one(pets):
    data = str(pets.parent / "data")
    said = prepare(str(pets), data)
    assert prepare(str(pets), data) == said
    put(pets / "train" / "cat" / "2.png")
    with pytest.raises(DataError, match=r"is not what was prepared in .*pets/1\.0\.0 any more: remove .* to prepare it again"):
        prepare(str(pets), data)
    (pets / "train" / "cat" / "2.png").rename(pets / "train" / "cat" / "2.txt")
    assert prepare(str(pets), data).num_examples == said.num_examples
    (pets / "train" / "cat").rename(pets / "train" / "wolf")
    (pets / "test" / "cat").rename(pets / "test" / "wolf")
    with pytest.raises(DataError, match="is not what was prepared"):
        prepare(str(pets), data)


def test_what_an_older_version_prepared_is_read_rightly(pets, monkeypatch):
    """Files of 16 bits were stored as they are; reading scales them too."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            put(pets / split / label / "0.png", ramp)
            put(pets / split / label / "1.png", ramp)
    monkeypatch.setattr("bap_jax.data.folder._stored", lambda file: file.read_bytes())
    prepare(str(pets), str(pets.parent / "data"))
    image = load_split("pets", "test", data_dir=str(pets.parent / "data")).read([0])[0][0]
    assert image.shape == (8, 8, 1) and image[0, 1, 0] == 4 and image.max() == 255 and image.mean() < 130
