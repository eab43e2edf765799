"""Robust Bird: masks are drawn early in robust training, once they stand still; then the sparse network is trained."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, by_default, falling, sgd
from bap_jax.pruners import drawn
from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="robust_bird",
    settings=ADVERSARIAL | {"pruner": "robust_bird"} | by_default(sgd(0.1, 5e-4, **falling("1/4,3/4"))),
    phases=(
        Phase("prune", {}, Length(epochs=200), until=drawn),
        Phase("finetune", {"pruner": ("fixed", {})}, Length(epochs=200)),
    ),
    taxonomy=Taxonomy("before: AT, AT, 1S", "US", "G", "LWM", attacks=True, pretrained=False),
    reference='Chen et al. 2022, "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training"',
    differs="Single weights; their form that draws channels by the scales of BatchNorm is left out.",
)
