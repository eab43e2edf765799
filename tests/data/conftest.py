"""A small folder of pictures, and the same prepared: written without TensorFlow, so that reading is tested in every clone."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from bap_jax.data import Prepared, prepare

COUNTS = {"train": {"cat": 9, "dog": 7, "emu": 4}, "test": {"cat": 2, "emu": 3}}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> pathlib.Path:
    """``pets/<split>/<class>/<number>.png``, 5 pixels high and 4 wide; the first pixel is (class, number, split)."""
    root = tmp_path_factory.mktemp("pictures") / "pets"
    generator = np.random.RandomState(0)
    for s, (split, classes) in enumerate(COUNTS.items()):
        for label, count in classes.items():
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.randint(0, 256, (5, 4, 3)).astype(np.uint8)
                pixels[0, 0] = (["cat", "dog", "emu"].index(label), number, s)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def prepared(pictures, tmp_path_factory) -> tuple[str, Prepared]:
    """The data folder and what prepare() said."""
    folder = str(tmp_path_factory.mktemp("prepared"))
    return folder, prepare(str(pictures), folder)
