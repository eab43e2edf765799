"""HARP: HYDRA's scores, and a rate for every layer that is trained with them."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, COSINE, by_default, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="harp",
    settings=ADVERSARIAL | {"pruner": "harp"} | by_default(sgd(0.1, 5e-4, **COSINE)),
    phases=(
        pretrained(100, decay=5e-4),
        Phase("prune", {}, Length(epochs=20)),
        Phase("finetune", {"pruner": ("fixed", {}), "optimizer": sgd(0.01, 5e-4, **COSINE)}, Length(epochs=100)),
    ),
    taxonomy=Taxonomy("after: AT, AT, 1S", "US, S", "G", "LIS", attacks=True, pretrained=True),
    reference='Zhao and Wressnegger 2023, "Holistic Adversarially Robust Pruning"',
    differs="Rates begin equal, not with a strategy read from a file; single weights only; the rate of fine-tuning is HYDRA's.",
)
