"""Blind against prescribed budgets on digits: the AER table, with no epsilon given to the blind arm.

Command: ``python -m experiments.digits_aer`` (135 runs), or ``bap sweep experiments/digits_aer.py --out DIR``.
"""

from __future__ import annotations

import dataclasses

from bap_jax.cli.demo import SWEEP as DEMO
from bap_jax.cli.grid import Process

SWEEP = dataclasses.replace(DEMO, processes=(Process(0.0, 0.2), Process(0.0, 0.5), Process(0.0, 0.8)), seeds=range(3))

if __name__ == "__main__":
    from experiments.common import main

    main("digits_aer", SWEEP, __doc__)
