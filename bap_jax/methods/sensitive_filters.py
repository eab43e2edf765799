"""A structured ratio from sensitivity under attack: every layer loses the filters that harm it no more than the others. Ours."""

from __future__ import annotations

from bap_jax.methods._published import ADVERSARIAL, COSINE, by_default, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

METHOD = Method(
    name="sensitive_filters",
    settings=ADVERSARIAL | {"pruner": "sensitive_filters"} | by_default(sgd(0.01, 5e-4, **COSINE)),
    phases=(
        pretrained(100, decay=5e-4),
        Phase("finetune", {}, Length(epochs=100)),
    ),
    taxonomy=Taxonomy("after: AT, AT, 1S", "S", "G", "LWM", attacks=True, pretrained=True),
    reference="Ours, in the spirit of Bai et al. 2024, arXiv 2410.15176, whose modules' robust sensitivity sets ratios of layers",
    differs="Their formula is not known to us. A layer's sensitivity is what the loss under attack grows by without a share of "
    "its filters; rates are those at which the most harmed layer is harmed least. Sparsity is the share of filters.",
)
