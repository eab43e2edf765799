"""PwoA: a robust network is pruned without any adversarial example, by distillation from itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bap_jax.methods._published import COSINE, sgd
from bap_jax.types import Length, Method, Phase, Taxonomy

_CLEAN: tuple[str, Mapping[str, object]] = ("none", MappingProxyType({}))
_TAXONOMY = Taxonomy("after: AT, KD, 1S", "US, S", "L", "SOLWM", attacks=False, pretrained=True)
_REFERENCE = 'Jian et al. 2022, "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (neu-spiral/PwoA)'
_DIFFERS = (
    "Without --init-from a phase pretrain trains the robust network; its length is ours. ADMM takes 51 epochs for 50, 17 whole "
    "cycles: at other lengths --prune.rate-cycles is a third of the epochs. Best is by validation, not by test."
)
_FALLING = MappingProxyType({"rate_schedule": "staircase", "rate_cycles": 17})


def _phases(admm, retrain, alpha: float, lambda_x: float, lambda_y: float) -> tuple[Phase, ...]:
    """ADMM with distillation from the robust network, a hard cut, retraining with the bottleneck."""
    hsic = {"alpha": alpha, "lambda_x": lambda_x, "lambda_y": lambda_y}
    retraining = {"budget": _CLEAN, "pruner": ("fixed", {}), "loss": ("distill_hsic", hsic), "optimizer": retrain}
    return (
        Phase("pretrain", {"pruner": ("dense", {})}, Length(epochs=100)),
        Phase("prune", {"budget": _CLEAN, "loss": ("distill", {"alpha": alpha}), "optimizer": admm}, Length(epochs=51)),
        Phase("finetune", retraining, Length(epochs=100)),
    )


_ROBUST = MappingProxyType(
    {"budget": "uniform", "loss": "madry", "loss.label_smoothing": 0.0, "attack.num_steps": 10, "pruner": "admm"}
)
METHOD = Method(  # as published for MNIST and LeNet
    name="pwoa",
    settings=_ROBUST | {"budget.epsilon": 0.3, "attack.num_steps": 40, "optimizer.learning_rate": 5e-4},
    phases=_phases(
        ("adam", {"learning_rate": 5e-4, **_FALLING}),
        ("adam", {"learning_rate": 1e-3, "rate_schedule": "piecewise", "rate_boundaries": "0.75,0.9"}),
        alpha=10.0,
        lambda_x=2e-4,
        lambda_y=5e-5,
    ),
    taxonomy=_TAXONOMY,
    reference=_REFERENCE,
    differs=_DIFFERS,
)
_CIFAR = _ROBUST | {
    "budget.epsilon": 8 / 255,
    "optimizer": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.weight_decay": 1e-4,
    **COSINE,
}
CIFAR10 = METHOD._replace(
    name="pwoa-cifar10",
    settings=_CIFAR,
    phases=_phases(sgd(0.01, 1e-4, **_FALLING), sgd(0.005, 1e-4, **COSINE), alpha=10.0, lambda_x=2e-5, lambda_y=1e-4),
)
CIFAR100 = METHOD._replace(
    name="pwoa-cifar100",
    settings=_CIFAR,
    phases=_phases(sgd(0.01, 1e-4, **_FALLING), sgd(0.005, 1e-4, **COSINE), alpha=100.0, lambda_x=5e-7, lambda_y=2e-6),
    differs=_DIFFERS + " Untried here: there is no such data.",
)
