"""Writes ONNX files of a run's network, or of every network by name, and compares what onnxruntime answers with what we do.

    python -m tools.onnx.compare --onnx .venv-onnx/bin/python --run runs/NAME
    python -m tools.onnx.compare --onnx .venv-onnx/bin/python --models lenet5,resnet8

It ends with 1 if a difference is above 1e-4 of the largest logit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bap_jax as bap
from bap_jax.models import NETWORKS, build
from bap_jax.runs.network_options import keywords_of
from bap_jax.runs.program_file import by_name
from bap_jax.runs.restore import settings_of
from bap_jax.runs.trust import Trust

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 1e-4  # of the largest logit
SMALL = {name: {"depth": 10, "width": 2} for name in ("wideresnet", "dm_wideresnet")}  # of those that are large by default
IMAGES = 5


class Answer(NamedTuple):
    """How far the two answers are apart."""

    name: str
    file: Path
    difference: float  # the largest, over the largest logit

    @property
    def same(self) -> bool:
        return self.difference <= LIMIT


def given(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], Any, tuple[Any, Any]]]:
    """Name, what it is, model and weights: of the run, or of every network asked for."""
    if arguments.run is not None:
        trust = Trust(everything=arguments.trust)
        settings, net = settings_of(Path(arguments.run), trust), bap.load(arguments.run, data_dir=arguments.data_dir, trust=trust)
        classes = jax.eval_shape(net, jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)).shape[1]
        told = {"model": settings.model, "options": keywords_of(settings.model_options), "num_classes": classes}
        yield Path(arguments.run).name, told | {"image_shape": net.image_shape}, net.model, net.weights
        return
    for name in NETWORKS if arguments.models == "all" else arguments.models.split(","):
        told = {"model": name, "options": SMALL.get(name, {}), "num_classes": 10, "image_shape": (32, 32, 3)}
        model = build(name, num_classes=10, conv="plain", **told["options"])
        params, state = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *told["image_shape"])))
        yield name, told, model, (params, state)


def compare(name: str, told: dict[str, Any], model: Any, weights: tuple[Any, Any], python: str, out: Path) -> Answer:
    """Converts one network in the other environment."""
    predict, arrays = by_name(model, *weights)
    images = np.random.default_rng(0).random((IMAGES, *told["image_shape"]), dtype=np.float32)
    source, file = out / f"{name}.npz", out / f"{name}.onnx"
    plain = {key: np.asarray(array) for key, array in arrays.items()}
    np.savez(source, told=json.dumps(told), images=images, **plain)  # type: ignore[arg-type]
    command = [python, "-m", "tools.onnx.convert", str(source), str(file)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
    ours, theirs = np.asarray(jax.jit(predict)(arrays, images)), np.load(f"{file}.logits.npy")
    return Answer(name, file, float(np.max(np.abs(ours - theirs)) / np.max(np.abs(ours))))


def main(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    answers = []
    for name, told, model, weights in given(arguments):
        answers.append(compare(name, told, model, weights, arguments.onnx, out))
        found = answers[-1]
        size = found.file.stat().st_size
        print(f"{name}: {found.file} ({size:,} bytes), largest difference {found.difference:.1e}", flush=True)
    return int(not all(answer.same for answer in answers))


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True, help="the Python of the other environment")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="a run folder")
    what.add_argument("--models", help="a comma list of networks by name, with new weights; or all")
    parser.add_argument("--out", default="runs/onnx", help="folder of the files")
    parser.add_argument("--data-dir", help="where prepared data sets are, if not where the run found them")
    parser.add_argument("--trust", action="store_true", help="import the code that the run names")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(parsed(sys.argv[1:])))
