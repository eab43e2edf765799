"""Blind against prescribed budgets on digits: the AER table, with no epsilon given to the blind arm.

Command: ``python -m experiments.digits_aer`` (135 runs).
"""

from __future__ import annotations

from bap_jax.cli.demo import ARMS, BASE, PLAN, SPARSITIES
from bap_jax.cli.grid import expand
from experiments.common import arguments, run

RAMP_ENDS = (0.2, 0.5, 0.8)

if __name__ == "__main__":
    given = arguments(__doc__)
    cells = expand(BASE, ARMS, sparsities=SPARSITIES, ramp_ends=RAMP_ENDS, seeds=range(given.seeds))
    run("digits_aer", "Blind adversarial pruning on digits", given, cells, [PLAN])
