"""HYDRA: scores are trained under attack which of a robust network's weights stay; these are then fine-tuned."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, COSINE, by_default, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="hydra",
    settings=ADVERSARIAL | {"pruner": "hydra"} | by_default(sgd(0.1, 1e-4, **COSINE)),
    phases=(
        pretrained(100),
        Phase("prune", {}, Length(epochs=20)),
        Phase("finetune", {"pruner": ("fixed", {}), "optimizer": sgd(0.01, 1e-4, **COSINE)}, Length(epochs=100)),
    ),
    taxonomy=Taxonomy("after: AT, AT, 1S", "US", "L", "LIS", attacks=True, pretrained=True),
    reference='Sehwag et al. 2020, "HYDRA: Pruning Adversarially Robust Neural Networks"',
    differs="Adversarial training by PGD; theirs on CIFAR-10 also uses TRADES and unlabelled data from elsewhere.",
)
