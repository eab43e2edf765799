"""MAD: of a robust network those weights stay whose damping harms the loss under attack most, to second order."""

from __future__ import annotations

from types import MappingProxyType

from bap_jax.methods._published import by_default, falling, pretrained, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

_ATTACKED = MappingProxyType(  # PGD-10 within 0.03, and MART's loss
    {
        "budget": "uniform",
        "budget.epsilon": 0.03,
        "attack.num_steps": 10,
        "attack.step_size": 0.23,
        "loss": "mart",
        "loss.beta": 0.5,
        "loss.label_smoothing": 0.0,
    }
)

METHOD = Method(
    name="mad",
    settings=_ATTACKED | {"pruner": "mad"} | by_default(sgd(0.1, 2e-4, **falling("1/2,3/4"))),
    phases=(
        pretrained(100, decay=2e-4),
        Phase("finetune", {}, Length(epochs=60)),
    ),
    taxonomy=Taxonomy("after: AT, AT, 1S", "US", "G", "LIS", attacks=True, pretrained=True),
    reference='Lee et al. 2022, "Masking Adversarial Damage: Finding Adversarial Saliency for Robust and Sparse Network" '
    "(ByungKwanLee/Masking-Adversarial-Damage)",
    differs="The Fisher matrix of each unit is computed as it is, where theirs is K-FAC's; biases are neither masked nor pruned; "
    "the length of pretraining is ours.",
)
