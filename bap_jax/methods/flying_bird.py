"""Flying Bird: sparse from the first step, its masks drop the smallest weights now and then and grow as many others."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, by_default, falling, sgd
from bap_jax.types import Method, Taxonomy

_REFERENCE = (
    'Chen et al. 2022, "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training" '
    "(VITA-Group/Sparsity-Win-Robust-Generalization)"
)

METHOD = Method(
    name="flying_bird",
    settings={**ADVERSARIAL, "pruner": "flying_bird", **by_default(sgd(0.1, 5e-4, **falling("1/2,3/4"))), "epochs": 200},
    taxonomy=Taxonomy("during: AT", "US", "L", "BCS", attacks=True, pretrained=False),
    reference=_REFERENCE,
    differs="Masks change at the published share of training, not after so many steps.",
)
PLUS = METHOD._replace(
    name="flying_bird_plus",
    settings={**METHOD.settings, "pruner": "flying_bird_plus"},
    differs="Validates ten times by default, not after each epoch: --validations 200 does so.",
)
