"""What benchmarks print: ratios, and what they were measured on."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import jax

from bap_jax.parallel import cores
from bap_jax.timing import Ratio


class RatioRow(NamedTuple):
    """One line of the result."""

    what: str
    ratio: Ratio
    processor: Ratio | None  # of processor time: a busy machine hardly changes it; says nothing on an accelerator
    goal: float | None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"device": device.device_kind, "platform": device.platform, "cores": cores(), "load": load, "jax": jax.__version__}


def plain(row: RatioRow) -> dict[str, Any]:
    """A line of the result as JSON."""
    processor = None if row.processor is None else row.processor._asdict()
    return {"what": row.what, "wall": row.ratio._asdict(), "processor": processor, "goal": row.goal}
