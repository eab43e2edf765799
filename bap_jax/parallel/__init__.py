"""Devices, meshes and hosts."""

from bap_jax.parallel.devices import apply_environment, cores, environment
from bap_jax.parallel.hosts import agreed, initialize_distributed, is_main_process, parse_distributed
from bap_jax.parallel.mesh import (
    batch_sharding,
    check_batch_size,
    check_chunks,
    data_mesh,
    jit_step,
    own_rows,
    replicate,
    replicated,
    shard_batch,
    shard_state,
)
from bap_jax.parallel.sharded import sharded_init, sharding_of

__all__ = [
    "agreed",
    "apply_environment",
    "batch_sharding",
    "check_batch_size",
    "check_chunks",
    "cores",
    "data_mesh",
    "environment",
    "initialize_distributed",
    "is_main_process",
    "jit_step",
    "own_rows",
    "parse_distributed",
    "replicate",
    "replicated",
    "shard_batch",
    "shard_state",
    "sharded_init",
    "sharding_of",
]
