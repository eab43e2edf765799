"""The sweep of `bap demo`: the main job on the embedded digits."""

from __future__ import annotations

from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.settings import Settings
from bap_jax.sweeps.grid import Process, Sweep

EPSILONS = "0,0.05,0.1,0.15,0.2,0.25,0.3,0.4"


PLAN = AttackPlan(attack="pgd", norm="linf", epsilon=EPSILONS, steps=20)


FAST, SLOW = Process(0.0, 0.2), Process(0.0, 0.8)


SWEEP = Sweep(
    title="Blind adversarial pruning on digits",
    base=Settings(data="digits", model="mlp", batch_size=64, epochs=60, scope="global", log_every=20, validations=2),
    arms=({"budget": "none"}, {"budget": "uniform"}, {"budget": "cutoff-scale"}),
    epsilons=("0.2", "0.3", "0.4"),
    sparsities=(0.8, 0.9, 0.97),
    processes=(FAST, SLOW),
    seeds=(0,),
    plans=(PLAN,),
)
