"""Small sweeps of the small networks: one that works, an arm that fails, and one that can be killed."""

import dataclasses

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep

OWN = "plugins_for_tests"
BASE = Settings(
    data=f"{OWN}:blobs", model=f"{OWN}:small", attack="fgsm", batch_size=8, steps=12, log_every=4, validations=3,
    validation_epsilon="0,0.1", validation_steps=2,
)  # fmt: skip
OTHER = {"budget": "uniform", "epsilon": "0.2", "learning_rate": 1e-2, "final_sparsity": 0.8, "seed": 1}
SMALL = Sweep(
    base=BASE,
    arms=(
        {"budget": "uniform"},
        {"budget": "uniform", "learning_rate": 1e-2, "epsilon": "0.2", "final_sparsity": 0.8, "seed": 1},
    ),
    epsilons=("0.1",),
    sparsities=(0.5,),
    processes=(Process(0.0, 0.25, 2), Process(0.0, 0.5, 2)),
    plans=(AttackPlan(attack="fgsm", epsilon="0,0.1", controls=False),),
)
BROKEN = {"budget": "uniform", "epsilon": "0.3", "seed": 1, "learning_rate": 1e38}  # its weights overflow
KILLED = dataclasses.replace(
    SMALL,
    base=dataclasses.replace(BASE, steps=60, log_every=1, keep=1),
    processes=SMALL.processes[:1],
    seeds=(0, 1),
)
