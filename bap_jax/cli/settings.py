"""Everything a training run can be told, in one flat record; checked before any work starts."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, Literal

from bap_jax.budgets import parse_cutoff
from bap_jax.errors import SettingError
from bap_jax.mathematics.schedules import SCHEDULES, Ramp, Schedule
from bap_jax.models import NETWORKS
from bap_jax.plugins import import_object, is_import_path

PLUGINS: dict[str, tuple[str, ...]] = {  # settings that may name the user's own code, and the names known here
    "model": tuple(NETWORKS),
    "budget": ("cutoff-scale", "uniform", "none"),
    "attack": ("pgd", "fgsm"),
    "pruner": ("magnitude", "dense"),
    "loss": ("auto", "mix", "clean"),
}


def parse_number(name: str, text: str) -> float:
    """A decimal or a fraction: ``0.1``, ``8/255``.

    Raises:
      SettingError: neither.

    >>> parse_number("--epsilon", "8/255")
    0.03137254901960784
    """
    try:
        return float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise SettingError(name, text, "a number or a fraction such as 8/255") from None


def parse_epsilons(name: str, text: str) -> tuple[float, ...]:
    """A comma list of radii, sorted and without repeats: ``0,8/255,0.1``.

    Raises:
      SettingError: an entry that is no number, negative or infinite.

    >>> parse_epsilons("--epsilon", "0.2,0,0.1,0.1")
    (0.0, 0.1, 0.2)
    """
    values = sorted({parse_number(name, part) for part in text.split(",")})
    for value in values:
        if not 0 <= value < math.inf:
            raise SettingError(name, text, "numbers of at least 0")
    return tuple(values)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a training run. Each also takes part in `config.json`, from which the run can be repeated."""

    data: str = "digits"
    """`digits` (embedded), the name of a prepared TFDS image data set such as `mnist`, or `package.module:factory`."""
    data_dir: str | None = None
    """Folder with prepared TFDS data sets; else the environment variable TFDS_DATA_DIR."""
    limit: int | None = None
    """Only the first so many training examples."""
    image_size: int | None = None
    """Resize the shorter side of TFDS images to this and cut out the middle square; needed where sizes differ."""
    train_split: str = "train"
    """The TFDS split or slice that training and validation data come from, e.g. `train[:80%]`."""
    test_split: str | None = None
    """The TFDS split or slice to test on; by default the data set's own test split."""
    model: str = "mlp"
    """`mlp`, `lenet5`, `fitnet4`, `vgg16`, `resnet8`, `resnet18`, `wideresnet`, or `package.module:factory`."""
    budget: str = "cutoff-scale"
    """Which adversarial examples training sees: `cutoff-scale` (blind: a budget per example, estimated), `uniform` (needs
    --epsilon), `none` (clean training), or `package.module:factory`."""
    epsilon: str | None = None
    """The radius of `--budget uniform`, in pixel units in [0, 1], e.g. 0.3 or 8/255. Blind training takes none."""
    norm: Literal["linf", "l2", "l1", "rms"] = "linf"
    """The norm that budgets are measured in."""
    attack: str = "pgd"
    """The attack that makes the training examples: `pgd`, `fgsm`, or `package.module:factory`."""
    attack_steps: int = 7
    """Steps of a PGD attack in training."""
    step_size: float | None = None
    """Step of a PGD attack as a fraction of epsilon; by default 2.5 / steps."""
    search: Literal["pgd", "deepfool"] = "pgd"
    """Blind budget: how the margin of an example is found: a short unrestricted `pgd` and a search along its path, or
    `deepfool`."""
    search_steps: int | None = None
    """Blind budget: steps of that search; by default 1 for pgd and 5 for deepfool."""
    num_bisections: int = 6
    """Blind budget: forward passes of the search along the path of pgd."""
    example: Literal["fresh", "rescaled"] = "fresh"
    """Blind budget: attack afresh at the estimated budget, or rescale the perturbation that was found."""
    cutoff: str = "mean"
    """Blind budget: where margins are cut: `mean` (of the batch), `quantile:LEVEL`, `running-mean:DECAY`, `constant:RADIUS`,
    `off`."""
    scale: float = 1.2
    """Blind budget: the factor rho on the cut margins."""
    epsilon_max: float | None = None
    """Blind budget: radius of the unrestricted search, and the margin of an example that nothing fools; by default the
    width of the box, so that the search is not restricted."""
    loss: str = "auto"
    """`mix` (part clean, part adversarial), `clean`, `package.module:factory`; `auto` is mix, or clean with `--budget none`."""
    adversarial_weight: float = 0.5
    """Share of the adversarial part in the loss `mix`; 1 trains on adversarial examples alone."""
    label_smoothing: float = 0.1
    """Label smoothing of training labels."""
    pruner: str = "magnitude"
    """`magnitude`, `dense` (no pruning), or `package.module:factory`."""
    initial_sparsity: float = 0.0
    """Sparsity at the begin of the ramp: zeros / prunable weights. Before the ramp the network is dense."""
    final_sparsity: float = 0.9
    """Sparsity at the end of the ramp."""
    schedule: Literal["gradual", "one-shot", "iterative", "constant"] = "gradual"
    """How sparsity rises along the ramp; gradual is the cubic of Zhu and Gupta."""
    ramp_begin: float = 0.0
    """Begin of the ramp as a fraction of training."""
    ramp_end: float = 0.6
    """End of the ramp as a fraction of training."""
    frequency: int | None = None
    """Steps between mask updates; by default a twentieth of the ramp, at most 100."""
    scope: Literal["layer", "global"] = "layer"
    """Whether weights compete within their layer or over the whole network."""
    distribution: Literal["uniform", "erk"] = "uniform"
    """With scope layer: the same sparsity everywhere, or Erdos-Renyi-kernel."""
    epochs: int = 60
    """Passes over the training data."""
    steps: int | None = None
    """Training steps, instead of epochs."""
    batch_size: int = 128
    """Examples in a batch, over all devices."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """`adam`, or `sgd` with Nesterov-free momentum 0.9."""
    learning_rate: float = 1e-3
    """Learning rate, constant."""
    weight_decay: float = 0.0
    """L2 weight decay, added to the gradient."""
    augment: bool = False
    """Shift by up to 10 % and flip training images at random, as the paper does on CIFAR."""
    seed: int = 0
    """Seed of weights, batch order, augmentation and attacks."""
    validation_epsilon: str = "0,0.1,0.2,0.3"
    """Radii, in --norm, at which validation measures robust accuracy; the best checkpoint has the largest mean."""
    validation_steps: int = 10
    """Steps of the PGD attack of validation."""
    validation_limit: int = 500
    """Validate on at most so many examples."""
    validations: int = 10
    """Validate after every so-manyth part of training, from the end of the ramp on."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    keep: int = 2
    """How many of the newest checkpoints to keep, besides the best."""

    def check(self) -> Settings:
        """Refuses what makes no sense, naming the setting, its value and what would be right.

        Raises:
          SettingError: for the first such setting.

        >>> Settings(final_sparsity=1.5).check()
        Traceback (most recent call last):
            ...
        bap_jax.errors.SettingError: --final-sparsity = 1.5: expected a number in [0, 1]
        """
        for name in ("initial_sparsity", "final_sparsity", "ramp_begin", "ramp_end", "adversarial_weight", "label_smoothing"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "a number in [0, 1]")
        _require(self, "ramp_end", self.ramp_end >= self.ramp_begin, f"at least --ramp-begin = {self.ramp_begin}")
        rises = self.final_sparsity >= self.initial_sparsity
        _require(self, "final_sparsity", rises, f"at least --initial-sparsity = {self.initial_sparsity}")
        counts = [
            "attack_steps",
            "epochs",
            "batch_size",
            "validation_steps",
            "validation_limit",
            "validations",
            "log_every",
            "keep",
        ]
        counts += [
            name for name in ("steps", "search_steps", "frequency", "limit", "image_size") if getattr(self, name) is not None
        ]
        for name in counts:
            _require(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        _require(self, "num_bisections", self.num_bisections >= 0, "a whole number of at least 0")
        _require(self, "seed", 0 <= self.seed < 2**31, "a whole number in [0, 2^31)")
        given = [name for name in ("step_size", "epsilon_max") if getattr(self, name) is not None]
        for name in ("learning_rate", "scale", *given):
            _require(self, name, 0 < getattr(self, name) < math.inf, "a finite number above 0")
        _require(self, "weight_decay", 0 <= self.weight_decay < math.inf, "a finite number of at least 0")
        for name, known in PLUGINS.items():
            if is_import_path(getattr(self, name)):
                import_object("--" + name, getattr(self, name))
            else:
                _require(self, name, getattr(self, name) in known, _one_of(known))
        parse_cutoff(self.cutoff)
        parse_epsilons("--validation-epsilon", self.validation_epsilon)
        if self.budget == "uniform":
            _require(self, "epsilon", self.epsilon is not None, "a radius: --budget uniform prescribes one, e.g. --epsilon 0.3")
            parse_epsilons("--epsilon", self.epsilon or "")
            self.radius()
        elif self.epsilon is not None and not is_import_path(self.budget):
            raise SettingError("--epsilon", self.epsilon, f"nothing with --budget {self.budget}, which takes no radius")
        if self.budget == "cutoff-scale" and self.norm in ("l2", "l1"):
            _require(self, "epsilon_max", self.epsilon_max is not None, f"a radius, with --norm {self.norm}")
        if self.example == "rescaled" and self.norm == "l1":
            raise SettingError("--norm", self.norm, "linf, l2 or rms with --example rescaled")
        return self

    def radius(self) -> float:
        """The one radius of ``--budget uniform``."""
        return parse_number("--epsilon", self.epsilon or "")

    def num_steps(self, steps_per_epoch: int) -> int:
        """Training steps in all."""
        return self.steps if self.steps is not None else self.epochs * steps_per_epoch

    def ramp(self, num_steps: int) -> Ramp:
        """The ramp in steps; it ends at the last step at the latest, so that its final sparsity is reached."""
        begin, end = (min(round(fraction * num_steps), num_steps - 1) for fraction in (self.ramp_begin, self.ramp_end))
        end = begin if self.schedule == "one-shot" else end  # nothing is chosen again after the one shot
        frequency = self.frequency or max(1, min(100, (end - begin) // 20))
        return Ramp(self.initial_sparsity, self.final_sparsity, begin, end, frequency)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        return dataclasses.asdict(self)

    def own_slots(self) -> bool:
        """Whether a slot of the train step is the user's own."""
        return any(is_import_path(getattr(self, name)) for name in PLUGINS if name != "model")

    def traced(self) -> Settings:
        """The same settings with everything neutral that compiled code takes from the state or never sees.

        Two runs whose traced settings are equal share one compiled step.
        """
        neutral = Settings(budget="uniform", epsilon="0.1", epsilon_max=1.0)
        names = [
            "data_dir",
            "limit",
            "epochs",
            "steps",
            "seed",
            "scale",
            "epsilon_max",
            "learning_rate",
            "image_size",
            "train_split",
            "test_split",
        ]
        names += ["initial_sparsity", "final_sparsity", "ramp_begin", "ramp_end", "frequency"]
        names += ["validation_limit", "validations", "log_every", "keep"]
        if self.epsilon is not None:
            names.append("epsilon")
        return dataclasses.replace(self, **{name: getattr(neutral, name) for name in names})


def schedule_of(name: str) -> Schedule:
    """The schedule of that name."""
    return dict(SCHEDULES)[name]


def _require(settings: Settings, name: str, fits: bool, expected: str) -> None:
    if not fits:
        raise SettingError("--" + name.replace("_", "-"), getattr(settings, name), expected)


def _one_of(names: tuple[str, ...]) -> str:
    return "one of " + ", ".join(names) + " or package.module:factory"
