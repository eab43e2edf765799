"""Checkpoints and run folders. Importing this loads orbax; ``import bap_jax`` does not."""

from bap_jax.checkpoint.json_file import read_json
from bap_jax.checkpoint.leaves import as_target, check_layout, describe
from bap_jax.checkpoint.manager import (
    CHECKPOINTS,
    Checkpoints,
    DamagedCheckpoint,
    check_readable,
    restore_network,
)
from bap_jax.checkpoint.run_folder import RunFolder, check_run, lock_folder, open_run, read_config, read_metrics, versions
from bap_jax.checkpoint.save_interval import SaveInterval
from bap_jax.types import Network

__all__ = [
    "CHECKPOINTS",
    "Checkpoints",
    "DamagedCheckpoint",
    "Network",
    "RunFolder",
    "SaveInterval",
    "as_target",
    "check_layout",
    "check_readable",
    "check_run",
    "describe",
    "lock_folder",
    "open_run",
    "read_config",
    "read_json",
    "read_metrics",
    "restore_network",
    "versions",
]
