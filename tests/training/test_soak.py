"""The blind step on several CPU devices must not wait for itself, however long it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import functools, json, sys
import numpy as np
import flax.linen as nn
from bap_jax.parallel import apply_environment, environment
devices, steps = int(sys.argv[1]), int(sys.argv[2])
apply_environment(environment(devices, "cpu"))
import jax, jax.numpy as jnp, optax
import bap_jax as bap
from bap_jax.models import conv_layer, from_linen
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
from bap_jax.types import Outputs

class Network(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = images
        for features in (4, 8):
            x = conv_layer(features, 3, conv="fast", strides=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return Outputs(nn.Dense(10)(x.reshape(len(x), -1)), {})

model = from_linen(Network())
pruner = bap.pruners.magnitude(bap.schedules.Ramp(0.0, 0.9, 0, steps, 7))
attack = functools.partial(bap.pgd, norm="linf", num_steps=3)
budget = bap.budgets.cutoff_scale(bap.budgets.pgd_search(), attack, cutoff=bap.budgets.parse_cutoff("running-mean:0.9"))
slots = optax.adam(1e-3), pruner, budget, bap.losses.mix()
mesh = data_mesh()
assert mesh.size == devices
images = np.random.default_rng(0).uniform(size=(4, 32, 8, 8, 1)).astype(np.float32)
rows = np.arange(32, dtype=np.int32)
whole = [bap.Batch(x, rows % 10, rows, np.ones(32, np.float32)) for x in images]
batches = [shard_batch(mesh, batch) for batch in whole]
info = bap.RunInfo(model.apply, 10, bap.Bounds(), (8, 8, 1), num_examples=128, steps_per_epoch=4, num_steps=steps)
state = bap.init_state(model, *slots, key=jax.random.key(0), images=jnp.zeros((1, 8, 8, 1)), info=info)
state = replicate(mesh, state)
step = jit_step(bap.make_train_step(model.apply, *slots), mesh)
compiled = step.lower(state, batches[0]).compile()
text = compiled.as_text()
for i in range(steps):
    state, metrics = compiled(state, batches[i % 4])
    if i % 100 == 99:
        jax.block_until_ready(state)  # as in training: many steps in flight, then a look at the losses
print(json.dumps({
    "collectives": sum(text.count(f" {kind}(") + text.count(f" {kind}-start(") for kind in ("all-reduce", "all-gather")),
    "steps": int(state.step),
    "finite": bool(jnp.isfinite(metrics["loss"])),
    "sparsity": float(bap.measured_sparsity(state.prune.masks)),
    "cutoff": float(state.budget.cutoff),
}))
"""


@pytest.mark.soak
@pytest.mark.parametrize("devices", [2, 8])
def test_thousands_of_blind_steps(devices):
    """A step that stalls is ended by XLA after 40 s, or by the timeout here; either fails the test."""
    unset = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    steps = 3000
    command = [sys.executable, "-c", PROGRAM, str(devices), str(steps)]
    answer = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert answer.returncode == 0, answer.stderr[-3000:]
    result = json.loads(answer.stdout.splitlines()[-1])
    assert result["collectives"] >= 3  # else it would show nothing
    assert result["steps"] == steps and result["finite"]
    assert result["sparsity"] == pytest.approx(0.9, abs=5e-3) and result["cutoff"] > 0
