"""An exported program as the network of a run: what compaction leaves of a network that cannot be built with other widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bap_jax.errors import SettingError
from bap_jax.export.program import from_bytes
from bap_jax.types import Model

NETWORK = "bap_jax.runs.program:network"  # as the configuration of such a run names it
FILE = "program.jaxexport"


def network(num_classes: int, *, program: str, **others: Any) -> Model:
    """The network in a file of :func:`bap_jax.export.program.to_bytes`, for inference and attacks.

    Args:
      num_classes: K.
      program: the file.
      **others: what else :func:`bap_jax.models.build` says, which the file has decided.

    Raises:
      SettingError: the file is not there, or none of those.
    """
    path = Path(program)
    if not path.is_file():
        raise SettingError("--model.program", program, f"a {FILE} that bap compact wrote, which stays where it was written")
    return from_bytes(path.read_bytes(), program)
