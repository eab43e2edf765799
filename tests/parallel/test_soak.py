"""One CPU device per core must not wait for itself, however long it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bap_jax

ROOT = Path(bap_jax.__file__).parents[1]
PROGRAM = """
import sys
import numpy as np
from bap_jax.parallel import apply_environment, environment
apply_environment(environment(int(sys.argv[1]), "cpu"))
import jax, jax.numpy as jnp
from bap_jax.parallel import data_mesh, jit_step, replicate, shard_batch
mesh = data_mesh()
assert mesh.size == int(sys.argv[1])

def step(state, batch):
    # gradients of many leaves and several statistics that do not depend on each other: one all-reduce each
    def loss(params):
        return sum(jnp.square(batch @ w).mean() for w in params)
    grads = jax.grad(loss)(state)
    attacked = jax.lax.fori_loop(0, 5, lambda i, x: x + 0.1 * jnp.sign(x) * jnp.abs(x).max(), batch)
    statistics = {"mean": batch.mean(), "median": jnp.median(attacked), "most": attacked.max(), "spread": attacked.std()}
    return [w - 0.01 * g for w, g in zip(state, grads)], statistics

compiled = jit_step(step, mesh)
batches = [shard_batch(mesh, np.random.default_rng(i).normal(size=(32, 16)).astype(np.float32)) for i in range(4)]
state = replicate(mesh, [np.eye(16, dtype=np.float32) * i for i in range(8)])
text = compiled.lower(state, batches[0]).compile().as_text()
print("reduces", text.count("all-reduce(") + text.count("all-reduce-start("), flush=True)
for i in range(int(sys.argv[2])):
    state, statistics = compiled(state, batches[i % 4])
    if i % 100 == 99:
        jax.block_until_ready(state)
print("done", bool(jnp.isfinite(state[0]).all()))
"""


@pytest.mark.soak
def test_thousands_of_steps_with_many_independent_reductions():
    devices = max(2, min(8, os.cpu_count() or 1))
    unset = ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", PROGRAM, str(devices), "5000"]
    answer = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert answer.stdout.split()[2:] == ["done", "True"], answer.stderr
    assert int(answer.stdout.split()[1]) >= 3  # else it would show nothing
