"""TwinRep: every weight is a product of two, which weight decay makes sparse."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, by_default, falling, sgd
from bap_jax.types import Method, Taxonomy

METHOD = Method(
    name="twin_rep",
    settings={**ADVERSARIAL, "pruner": "twin_rep", **by_default(sgd(0.1, 2e-4, **falling("0.7,0.85"))), "epochs": 100},
    taxonomy=Taxonomy("during: AT", "US, S", "G", "RELWM", attacks=True, pretrained=False),
    reference=(
        'Li et al. 2023, "Learning Adversarially Robust Sparse Networks via Weight Reparameterization" (UCAS-LCH/Twin-Rep)'
    ),
    differs="Pruned filters stay pruned.",
)
