"""`make onnx`: what goes to the other environment is the network, and a difference is told. Converting itself needs jax2onnx."""

import json
import sys

import numpy as np
from random_runs import make_run

from bap_jax.runs.restore import load
from tools.onnx import compare, convert

# Stands in for the conversion in the other environment: the network that was sent, run by jax, with what is added to its logits.
FAKE = """
import json, sys, numpy as np
from tools.onnx.convert import network
with np.load(sys.argv[1]) as stored:
    arrays = dict(stored)
told, images = json.loads(str(arrays.pop("told"))), arrays.pop("images")
open(sys.argv[2], "w").write("onnx")
np.save(sys.argv[2] + ".logits.npy", np.asarray(network(told, arrays)(images)) * np.float32([1.01] + 9 * [1]))
"""


def test_the_network_is_sent_and_a_difference_is_told(tmp_path, capsys):
    run = make_run(tmp_path / "x")
    python = tmp_path / "python"
    (tmp_path / "fake.py").write_text(FAKE)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "fake.py"} "$3" "$4"\n')  # instead of: -m tools.onnx.convert
    python.chmod(0o755)
    words = ["--onnx", str(python), "--run", str(run), "--out", str(tmp_path / "out")]
    assert compare.main(compare.parsed(words)) == 1
    assert f"{tmp_path / 'out' / 'x.onnx'} (4 bytes)" in capsys.readouterr().out
    assert compare.Answer("x", tmp_path, 9e-5).same and not compare.Answer("x", tmp_path, 2e-4).same
    with np.load(tmp_path / "out" / "x.npz") as stored:
        arrays = dict(stored)
    told, images = json.loads(str(arrays.pop("told"))), arrays.pop("images")
    assert told["model"] == "mlp" and told["num_classes"] == 10
    wanted = np.asarray(load(run)(images))
    np.testing.assert_allclose(convert.network(told, arrays)(images), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
