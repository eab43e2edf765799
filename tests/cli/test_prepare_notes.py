"""`bap data prepare`: what of a folder is passed over is shown, as it is called and without its escape codes."""

import numpy as np
from PIL import Image


def test_what_is_passed_over_is_shown(bap, refused, tmp_path):
    for place in ("train/cat[1]/0.png", "train/dog/0.png", "test/cat[1]/0.png"):
        (tmp_path / "pets" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "pets" / place)
    (tmp_path / "pets" / "train" / "dog" / "[red]\x1b[31m.txt").write_text("x")
    given = ("data", "prepare", tmp_path / "pets", "--data-dir", tmp_path / "data")
    code, output, error = bap(*given)
    assert code == 0, error
    assert r"note: 1 files of other kinds were left out (1 .txt): train/dog/[red]\x1b[31m.txt" in output
    assert "note: test has no pictures of 1 of 2 classes: dog" in output and "\x1b" not in output
    (tmp_path / "pets" / "train" / "dog" / "\x1b[31m.png").write_bytes(b"x")
    assert r"\x1b[31m.png: is no readable picture" in refused(*given)
