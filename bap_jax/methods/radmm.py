"""Robust-ADMM: adversarial training with weights drawn to sparse ones, a hard cut, adversarial retraining."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, COSINE, by_default, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="radmm",
    settings=ADVERSARIAL | {"pruner": "robust_admm"} | by_default(sgd(0.01, 1e-4, **COSINE)),
    phases=(
        pretrained(100),
        Phase("prune", {}, Length(epochs=100)),
        Phase("finetune", {"pruner": ("fixed", {})}, Length(epochs=100)),
    ),
    taxonomy=Taxonomy("after: AT, AT, 1S", "US, S", "L", "SOLWM", attacks=True, pretrained=True),
    reference='Ye et al. 2019, "Adversarial Robustness vs. Model Compression, or Both?"',
    differs="Lengths, rates and the epochs between two updates are not known to us; all kernels are pruned.",
)
