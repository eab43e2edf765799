"""What several published methods have in common."""

from __future__ import annotations

from types import MappingProxyType

from bap_jax.types import Length, Phase

# Adversarial training as the field's CIFAR-10 code has it: PGD-10 within 0.031, on adversarial examples alone.
ADVERSARIAL = MappingProxyType(
    {
        "budget": "uniform",
        "budget.epsilon": 0.031,
        "attack.num_steps": 10,
        "attack.step_size": 0.0078 / 0.031,
        "loss": "madry",
        "loss.label_smoothing": 0.0,
    }
)
COSINE = MappingProxyType({"rate_schedule": "cosine"})


def falling(at: str) -> dict[str, object]:
    """A rate that falls to a tenth at fractions of training."""
    return {"rate_schedule": "piecewise", "rate_boundaries": at}


def sgd(rate: float, decay: float, **schedule: object) -> tuple[str, dict[str, object]]:
    """SGD with momentum 0.9, as an entry of a phase's slots."""
    return "sgd", {"learning_rate": rate, "momentum": 0.9, "weight_decay": decay, **schedule}


def by_default(slot: tuple[str, dict[str, object]]) -> dict[str, object]:
    """An optimiser of :func:`sgd` as settings of a run.

    Example:
      >>> by_default(sgd(0.1, 1e-4, rate_schedule="cosine"))["rate_schedule"]
      'cosine'
    """
    name, options = slot
    own = ("learning_rate", "momentum", "weight_decay")
    return {"optimizer": name} | {f"optimizer.{key}" if key in own else key: value for key, value in options.items()}


def pretrained(epochs: int, *, rate: float = 0.1, decay: float = 1e-4) -> Phase:
    """Training of the dense network as the run says, whose place a network takes that the run starts from."""
    slots = {"pruner": ("dense", {}), "optimizer": sgd(rate, decay, **COSINE)}
    return Phase("pretrain", slots, Length(epochs=epochs))
