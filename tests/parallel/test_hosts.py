"""Two processes on this machine stand for two hosts."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bap_jax
from bap_jax.errors import SettingError
from bap_jax.parallel import initialize_distributed, is_main_process

ROOT = Path(bap_jax.__file__).parents[1]
PROGRAM = """
import sys
import numpy as np
from bap_jax.parallel import apply_environment, environment, initialize_distributed, is_main_process
address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
apply_environment(environment(2, "cpu"))
initialize_distributed(address, 2, process)
import jax
from bap_jax.checkpoint import Checkpoints, SaveInterval, as_target, check_readable, open_run, read_metrics
from bap_jax.parallel import data_mesh, jit_step, replicate, replicated, shard_batch
mesh = data_mesh()
assert mesh.size == 4 and is_main_process() == (process == 0)
batch = shard_batch(mesh, np.arange(4, dtype=np.float32) + 4 * process)
assert batch.shape == (8,)
step = jit_step(lambda s, b: ({"sum": s["sum"] + b.sum(), "key": s["key"]}, {}), mesh)
state, _ = step(replicate(mesh, {"sum": np.float32(0), "key": jax.random.key(1)}), batch)
with open_run(folder, {"seed": 0}) as run, Checkpoints(run.checkpoints) as checkpoints:
    check_readable(run.checkpoints)
    run.log(1, sum=state["sum"])
    if SaveInterval(steps=1, seconds=0).due(1):
        checkpoints.save(1, state, metric=1.0)
    back = checkpoints.restore(as_target(state, replicated(mesh)))
assert back["sum"].sharding.device_set == set(jax.devices())
print("answer", float(back["sum"].addressable_data(0)), read_metrics(folder) if process == 0 else "")
"""


def test_two_hosts_share_a_batch_a_run_folder_and_a_checkpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    clean = {name: v for name, v in os.environ.items() if name not in ("XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(i), str(tmp_path / "run")],
            env=clean,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        answers = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = [out.partition("answer ")[2].strip() for out, _ in answers]
    assert found == ["28.0 [{'step': 1, 'sum': 28.0}]", "28.0"], answers


def test_half_an_address_is_refused():
    with pytest.raises(SettingError, match="address = None: expected host:port"):
        initialize_distributed(num_processes=2, process_id=0)
    with pytest.raises(SettingError, match="num_processes = None: expected a number"):
        initialize_distributed("localhost:1")
    with pytest.raises(SettingError, match="process_id = 2: expected 0 to 1"):
        initialize_distributed("localhost:1", 2, 2)


def test_a_single_process_is_the_main_one():
    assert is_main_process()
