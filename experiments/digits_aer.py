"""The paper's three claims on digits: every arm of the paper over sparsities, pruning processes and seeds.

Command: ``python -m experiments.digits_aer --publish``, or ``bap sweep experiments/digits_aer.py --out DIR``. Every network is
evaluated on validation data as well, by which the best uniform budget is chosen.

Run time: 540 cells in 40 minutes on one core of an AMD EPYC (jax 0.10.2). What it showed (README.md has the numbers): clean
pruning's robustness varies more over processes than its clean accuracy does, by points, not drastically; adversarial pruning
depends on its budget; blind pruning scores 1.1 points above the best uniform budget, and is steadier than strong budgets but not
than weak ones.
"""

from __future__ import annotations

import dataclasses

from bap_jax.sweeps.demo import PLAN
from bap_jax.sweeps.demo import SWEEP as DEMO
from bap_jax.sweeps.grid import Process
from experiments.arms import PAPER

SWEEP = dataclasses.replace(
    DEMO,
    title="The claims of the paper on digits",
    arms=PAPER,
    epsilons=("0.1", "0.2", "0.3", "0.4"),
    processes=(Process(0.0, 0.2), Process(0.0, 0.5), Process(0.0, 0.8)),
    seeds=range(5),
    plans=(dataclasses.replace(PLAN, split="validation"), PLAN),
)

if __name__ == "__main__":
    from experiments.common import main

    main("digits_aer", SWEEP, __doc__)
