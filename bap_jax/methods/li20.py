"""Li20: masks from short adversarial training by FGSM; the network they leave is trained anew from its first weights."""

from __future__ import annotations

from types import MappingProxyType

from bap_jax.methods._published import ADVERSARIAL, by_default, falling, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

_AT_THE_END = MappingProxyType({"schedule": "one-shot", "ramp_begin": 1.0, "ramp_end": 1.0, "scope": "global"})

METHOD = Method(
    name="li20",
    settings=ADVERSARIAL | {"pruner": "magnitude"} | by_default(sgd(0.1, 5e-4, **falling("1/2,3/4"))),
    phases=(
        Phase("prune", {"attack": ("fgsm", {}), "pruner": ("magnitude", _AT_THE_END)}, Length(epochs=20)),
        Phase("finetune", {"pruner": ("fixed", {})}, Length(epochs=180), weights="start"),
    ),
    taxonomy=Taxonomy("before: FGSM-AT, AT, 1S", "US", "G", "LWM", attacks=True, pretrained=False),
    reference='Li et al. 2020, "Towards Practical Lottery Ticket Hypothesis for Adversarial Training"',
    differs="When its early masks are taken is not known to us: a tenth of training is ours.",
)
