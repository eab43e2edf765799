"""Everything a training run can be told, in one flat record; checked before any work starts."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, Literal

from bap_jax.budgets import parse_cutoff, parse_wrong
from bap_jax.errors import SettingError
from bap_jax.inputs import require_radius
from bap_jax.mathematics.schedules import SCHEDULES, Ramp, Schedule
from bap_jax.models import NETWORKS
from bap_jax.plugins import import_object, is_import_path
from bap_jax.types import Bounds

PLUGINS: dict[str, tuple[str, ...]] = {  # settings that may name the user's own code, and the names known here
    "model": tuple(NETWORKS),
    "budget": ("cutoff-scale", "uniform", "mma", "iaat", "cat", "fat", "none"),
    "attack": ("pgd", "fgsm"),
    "pruner": ("magnitude", "dense"),
    "optimizer": ("adam", "adamw", "sgd"),
    "loss": ("auto", "mix", "madry", "trades", "mart", "mma", "clean"),
}
WITH_RADIUS = ("uniform", "iaat", "fat")  # budgets that take an --epsilon
RADII = {  # radii that have published values in linf, and have to be given in other norms
    "mma": ("epsilon_min", "epsilon_max"),
    "iaat": ("epsilon", "epsilon_step"),
    "cat": ("epsilon_step", "epsilon_max"),
    "fat": ("epsilon",),
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


def parse_fractions(name: str, text: str) -> tuple[float, ...]:
    """A comma list of fractions of training that do not fall: ``50/120,90/120``; an empty text is an empty list.

    Raises:
      SettingError: an entry that is no number or outside [0, 1], or below the one before.

    >>> parse_fractions("--tau-rises", "1/4,0.5"), parse_fractions("--tau-rises", "")
    ((0.25, 0.5), ())
    """
    values = tuple(parse_number(name, part) for part in text.split(",")) if text.strip() else ()
    if any(not 0 <= value <= 1 for value in values) or list(values) != sorted(values):
        raise SettingError(name, text, "fractions of training in [0, 1] that do not fall, such as 50/120,90/120")
    return values


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
    init_from: str | None = None
    """Start from a network that is trained already: a run folder, also one of bap import, or a file that bap import reads
    (.safetensors, .pth). Its weights and BatchNorm statistics; the optimiser starts anew."""
    init_checkpoint: str = "last"
    """With a run: which of its checkpoints, `last`, `best` or a step."""
    init_masks: Literal["keep", "nonzero", "none"] = "keep"
    """Which weights that network has: those that its masks `keep`, those that are `nonzero`, or all (`none`: pruned weights may
    come back). The others stay pruned for good: no later mask keeps them."""
    init_digest: str | None = None
    """SHA-256 of what --init-from names, noted when the run starts; where it is given, nothing else is started from."""
    budget: str = "cutoff-scale"
    """Which adversarial examples training sees: `cutoff-scale` (blind: a budget per example, estimated), `uniform` (needs
    --epsilon), `mma` (margins, found again in every epoch), `iaat` and `cat` (budgets that grow and shrink per example), `fat`
    (attacks that stop early), `none` (clean training), or `package.module:factory`."""
    epsilon: str | None = None
    """The radius of `--budget uniform`, in pixel units in [0, 1], e.g. 0.3 or 8/255; of the ball of `fat` (by default 0.031) and
    of the warm-up of `iaat` (8/255). Blind training takes none."""
    norm: Literal["linf", "l2", "l1", "rms"] = "linf"
    """The norm that budgets are measured in."""
    attack: str = "pgd"
    """The attack that makes the training examples: `pgd`, `fgsm`, or `package.module:factory`."""
    attack_steps: int = 7
    """Steps of a PGD attack in training. Other budgets and losses than blind ones were published with 10."""
    step_size: float | None = None
    """Step of a PGD attack as a fraction of epsilon; by default 2.5 / steps, with iaat in linf 2 / steps but at least 2/255, and
    7/31 with fat and with the objective kl."""
    objective: Literal["auto", "cross-entropy", "kl", "soft-margin"] = "auto"
    """What that attack maximises: `cross-entropy`, `kl` (the divergence from the clean prediction; starts near the image),
    `soft-margin`; `auto` is soft-margin with --budget mma, kl with --loss trades, and else cross-entropy."""
    search: Literal["pgd", "deepfool"] = "pgd"
    """Blind budget: how the margin of an example is found: a short unrestricted `pgd` and a search along its path, or
    `deepfool`."""
    search_steps: int | None = None
    """Blind budget: steps of that search; by default 1 for pgd and 5 for deepfool."""
    num_bisections: int = 6
    """Blind budget and mma: forward passes of the search along the path of pgd. MMA was published with 10."""
    path: Literal["ball", "ray"] = "ball"
    """Blind budget: the way that the search of pgd goes: `ball`, through the balls of all radii, each feature up to its wall; or
    `ray`, straight to the far point inside the box."""
    halving: Literal["log", "linear"] = "log"
    """Blind budget: whether the search halves the logarithm of the radius between epsilon-max/512 and epsilon-max, and so knows
    small margins as well as large ones, or the radius itself, to epsilon-max/2^bisections."""
    example: Literal["fresh", "rescaled"] = "fresh"
    """Blind budget: attack afresh at the estimated budget, or rescale the perturbation that was found."""
    cutoff: str = "mean"
    """Blind budget: where margins are cut: `mean` (of the batch), `quantile:LEVEL`, `running-mean:DECAY`, `constant:RADIUS`,
    `off`."""
    cutoff_over: Literal["all", "right"] = "all"
    """Blind budget: whose margins the cutoff is a mean or quantile of: `all`, a wrong example's being 0, or the `right` ones'."""
    wrong: str = "cutoff"
    """Blind budget: what an image gets that is misclassified already: `cutoff` (rho times the cutoff), `zero`, or
    `floor:FRACTION` (that fraction of it). DeepFool pushes such an image on and asks nothing of this."""
    scale: float = 1.2
    """Blind budget: the factor rho on the cut margins."""
    epsilon_max: float | None = None
    """Blind budget: radius of the unrestricted search, and the margin of an example that nothing fools; by default the
    width of the box, so that the search is not restricted. Budget mma: d_max, by default 32/255. Budget cat: the cap, by default
    8/255."""
    epsilon_min: float | None = None
    """Budget mma: least radius that is attacked at; by default 0.005."""
    epsilon_step: float | None = None
    """Budgets iaat (gamma) and cat (eta): by how much an example's budget goes up or down; by default 1.9/255 and 0.005."""
    epsilon_rate: float = 0.1
    """Budget iaat: beta, the share of the new in the running mean of an example's budget."""
    epsilon_warmup: float = 1 / 11
    """Budget iaat: fraction of training at --epsilon, before budgets adapt; 10 of 110 epochs as published."""
    label_factor: float = 10.0
    """Budget cat: c, the share of a label that is drawn at random, per unit of epsilon."""
    tau_rises: str = "50/120,90/120"
    """Budget fat: fractions of training at which tau goes up by one: how many tests an example fails before its attack stops."""
    loss: str = "auto"
    """`mix` (part clean, part adversarial), `madry` (adversarial alone), `trades`, `mart`, `mma` (mix of 2/3), `clean`,
    `package.module:factory`; `auto` is what goes with the budget: mix, clean with none, mma with mma, madry with iaat, cat and
    fat."""
    adversarial_weight: float = 0.5
    """Share of the adversarial part in the loss `mix`; 1 trains on adversarial examples alone."""
    beta: float = 6.0
    """Losses trades and mart: factor of the divergence between clean and attacked prediction."""
    label_smoothing: float = 0.1
    """Label smoothing of training labels: the blind paper's. The other budgets and losses were published with 0."""
    pruner: str = "magnitude"
    """`magnitude`, `dense` (no pruning), or `package.module:factory`."""
    initial_sparsity: float = 0.0
    """Sparsity at the begin of the ramp: zeros / prunable weights. Before the ramp the network is dense. With --init-from, what
    its masks measure, where that is more: before the ramp they stay."""
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
    optimizer: str = "adam"
    """`adam`, `adamw`, `sgd`, or `package.module:factory`."""
    momentum: float = 0.9
    """Optimizer sgd: momentum; 0 is none."""
    nesterov: bool = False
    """Optimizer sgd: Nesterov's momentum."""
    learning_rate: float = 1e-3
    """Learning rate: what a schedule is a part of, its largest value."""
    weight_decay: float = 0.0
    """Weight decay: with adam and sgd L2, added to the gradient; with adamw decoupled from it."""
    gradient_clip: float | None = None
    """Largest L2 norm of the gradient of all weights together; a longer one is scaled down to it. By default unlimited."""
    rate_schedule: Literal["constant", "linear", "cosine", "piecewise", "one-cycle", "cyclic"] = "constant"
    """How the learning rate goes, step by step: linear and cosine fall to 0, piecewise falls at --rate-boundaries by --rate-factors,
    one-cycle rises from 1/25 and falls to 1/250000 along cosines, cyclic rises from 0 and falls back, in straight lines."""
    rate_warmup: float | None = None
    """Fraction of training in which the learning rate rises, from 0 in a straight line: by default 0. With one-cycle, along its own
    cosine: 0.3. With cyclic, the fraction of each cycle: 0.5."""
    rate_boundaries: str = "1/2,3/4"
    """Rate schedule piecewise: fractions of training at which the learning rate falls."""
    rate_factors: str = "0.1"
    """Rate schedule piecewise: what the learning rate is multiplied by, at every boundary or at each its own: 0.1,0.5."""
    rate_cycles: int = 1
    """Rate schedule cyclic: how often the learning rate rises and falls."""
    ema: float = 0.0
    """Decay of an exponential moving average of the pruned weights, e.g. 0.999; 0 keeps none. Its network is saved besides:
    --checkpoint ema."""
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
        fractions = ("initial_sparsity", "final_sparsity", "ramp_begin", "ramp_end", "adversarial_weight", "label_smoothing")
        for name in (*fractions, "epsilon_warmup"):
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
            "rate_cycles",
        ]
        counts += [
            name for name in ("steps", "search_steps", "frequency", "limit", "image_size") if getattr(self, name) is not None
        ]
        for name in counts:
            _require(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        _require(self, "num_bisections", self.num_bisections >= 0, "a whole number of at least 0")
        _require(self, "seed", 0 <= self.seed < 2**31, "a whole number in [0, 2^31)")
        optional = ("step_size", "epsilon_max", "epsilon_min", "epsilon_step", "gradient_clip")
        given = [name for name in optional if getattr(self, name) is not None]
        for name in ("learning_rate", "scale", *given):
            _require(self, name, 0 < getattr(self, name) < math.inf, "a finite number above 0")
        for name in ("weight_decay", "beta", "label_factor"):
            _require(self, name, 0 <= getattr(self, name) < math.inf, "a finite number of at least 0")
        _require(self, "epsilon_rate", 0 < self.epsilon_rate <= 1, "a number in (0, 1]")
        parse_fractions("--tau-rises", self.tau_rises)
        for name, known in PLUGINS.items():
            if is_import_path(getattr(self, name)):
                import_object("--" + name, getattr(self, name))
            else:
                _require(self, name, getattr(self, name) in known, _one_of(known))
        parse_cutoff(self.cutoff)
        parse_wrong(self.wrong)
        parse_epsilons("--validation-epsilon", self.validation_epsilon)
        self._check_optimizer()
        self._check_budget()
        self._check_attack()
        self._check_init()
        if not is_import_path(self.data):  # a data set of one's own may have other bounds; see check_radii
            self.check_radii(Bounds())
        return self

    def check_radii(self, bounds: Bounds, image_shape: tuple[int, ...] | None = None) -> None:
        """Refuses radii wider than the box: with the data's own bounds and image shape once these are known.

        Raises:
          SettingError: with the fraction that was probably meant.

        >>> Settings(epsilon_max=8.0).check_radii(Bounds())
        Traceback (most recent call last):
            ...
        bap_jax.errors.SettingError: --epsilon-max = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?
        """
        radii: dict[str, Any] = {"--validation-epsilon": parse_epsilons("--validation-epsilon", self.validation_epsilon)}
        if not is_import_path(self.budget):  # one of the user's own may mean anything by them
            radii |= {
                "--" + name.replace("_", "-"): getattr(self, name) for name in ("epsilon_max", "epsilon_min", "epsilon_step")
            }
            radii["--epsilon"] = self.radius() if self.epsilon is not None else None
            cutoff = parse_cutoff(self.cutoff)
            radii["--cutoff constant"] = cutoff.value if cutoff.kind == "constant" else None
        for name, radius in radii.items():
            require_radius(radius, self.norm, bounds, image_shape, name)

    def _check_budget(self) -> None:
        if self.budget == "uniform":
            _require(self, "epsilon", self.epsilon is not None, "a radius: --budget uniform prescribes one, e.g. --epsilon 0.3")
        if self.budget in WITH_RADIUS and self.epsilon is not None:
            parse_epsilons("--epsilon", self.epsilon)
            self.radius()
        elif self.epsilon is not None and self.budget not in WITH_RADIUS and not is_import_path(self.budget):
            raise SettingError("--epsilon", self.epsilon, f"nothing with --budget {self.budget}, which takes no radius")
        if self.budget == "cutoff-scale" and self.norm in ("l2", "l1"):
            _require(self, "epsilon_max", self.epsilon_max is not None, f"a radius, with --norm {self.norm}")
        if self.budget == "cutoff-scale":
            self._check_search()
        for name in RADII.get(self.budget, ()) if self.norm != "linf" else ():
            _require(self, name, getattr(self, name) is not None, f"a radius, with --budget {self.budget} --norm {self.norm}")
        if self.example == "rescaled" and self.norm == "l1":
            raise SettingError("--norm", self.norm, "linf, l2 or rms with --example rescaled")

    def _check_init(self) -> None:
        default = Settings()
        for name in ("init_checkpoint", "init_masks", "init_digest"):
            untold = getattr(self, name) == getattr(default, name)
            _require(self, name, untold or self.init_from is not None, "nothing without --init-from")
        known = self.init_checkpoint in ("last", "best") or self.init_checkpoint.isdecimal()
        _require(self, "init_checkpoint", known, "last, best or a step")


    def _check_optimizer(self) -> None:
        default, told = Settings(), lambda name: getattr(self, name) != getattr(default, name)
        _require(self, "ema", 0 <= self.ema < 1, "a number in [0, 1)")
        _require(self, "momentum", 0 <= self.momentum < 1, "a number in [0, 1)")
        if self.optimizer in ("adam", "adamw"):
            for name in ("momentum", "nesterov"):
                _require(self, name, not told(name), f"nothing with --optimizer {self.optimizer}: it is a setting of sgd")
        _require(self, "nesterov", not self.nesterov or self.momentum > 0, "a --momentum above 0 with it")
        warmup = self.rate_warmup or 0.0
        _require(self, "rate_warmup", 0 <= warmup < 1, "a number in [0, 1)")
        for name, schedule in (("rate_boundaries", "piecewise"), ("rate_factors", "piecewise"), ("rate_cycles", "cyclic")):
            fits = self.rate_schedule == schedule or not told(name)
            _require(self, name, fits, f"nothing with --rate-schedule {self.rate_schedule}: it is a setting of {schedule}")
        boundaries = parse_fractions("--rate-boundaries", self.rate_boundaries)
        rise = boundaries and list(boundaries) == sorted(set(boundaries)) and 0 < boundaries[0] and boundaries[-1] < 1
        _require(self, "rate_boundaries", bool(rise), "fractions of training in (0, 1), each above the one before")
        if self.rate_schedule == "piecewise":
            expected = f"boundaries not before the warm-up's end, --rate-warmup = {warmup:g}"
            _require(self, "rate_boundaries", boundaries[0] >= warmup, expected)
        rate_factors(self)

    def _check_search(self) -> None:
        default = Settings()
        if self.search == "deepfool":
            for name in ("path", "halving", "wrong", "cutoff_over"):
                untold = getattr(self, name) == getattr(default, name)
                _require(self, name, untold, "nothing with --search deepfool, which walks no path and pushes wrong images on")
            return
        least = 1 if self.halving == "log" else 0
        _require(self, "num_bisections", self.num_bisections >= least, f"at least {least} with --halving {self.halving}")
        kind = parse_cutoff(self.cutoff).kind
        if kind in ("off", "constant"):
            expected = f"all with --cutoff {self.cutoff}, which is no mean"
            _require(self, "cutoff_over", self.cutoff_over == default.cutoff_over, expected)
        if kind == "off":
            expected = "cutoff or zero with --cutoff off, which leaves nothing to take a fraction of"
            _require(self, "wrong", not self.wrong.startswith("floor"), expected)

    def _check_attack(self) -> None:
        if self.budget == "none":
            useful = self.loss in ("auto", "mix", "clean") or is_import_path(self.loss)
            _require(self, "loss", useful, "mix or clean with --budget none, which makes no adversarial examples")
            return
        if self.budget == "fat" or (self.attack_objective == "kl" and not is_import_path(self.attack)):
            reason = "--budget fat" if self.budget == "fat" else "the objective kl"
            _require(self, "attack", self.attack == "pgd", f"pgd with {reason}")
            _require(self, "norm", self.norm != "l1", f"linf, l2 or rms with {reason}")

    @property
    def attack_objective(self) -> str:
        """What the training attack maximises: ``cross-entropy``, ``kl`` or ``soft-margin``."""
        if self.objective != "auto":
            return self.objective
        return "soft-margin" if self.budget == "mma" else "kl" if self.loss == "trades" else "cross-entropy"

    @property
    def loss_name(self) -> str:
        """The loss, ``auto`` resolved."""
        with_budget = {"none": "clean", "mma": "mma", "iaat": "madry", "cat": "madry", "fat": "madry"}
        return with_budget.get(self.budget, "mix") if self.loss == "auto" else self.loss

    def radius(self) -> float:
        """The one radius of ``--epsilon``."""
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

    def scheduled(self) -> bool:
        """Whether the learning rate changes along training."""
        return self.rate_schedule != "constant" or bool(self.rate_warmup)

    def traced(self) -> Settings:
        """The same settings with everything neutral that compiled code takes from the state or never sees.

        Two runs whose traced settings are equal share one compiled step.
        """
        neutral = Settings(budget="uniform", epsilon="0.1", epsilon_max=1.0, epsilon_min=0.1, epsilon_step=0.1, label_factor=1.0)
        names = [
            "data_dir",
            "limit",
            "epochs",
            "steps",
            "seed",
            "scale",
            "wrong",
            "epsilon_max",
            "epsilon_min",
            "epsilon_step",
            "epsilon_rate",
            "epsilon_warmup",
            "label_factor",
            "beta",
            "learning_rate",
            "image_size",
            "train_split",
            "test_split",
        ]
        names += ["init_from", "init_checkpoint", "init_masks", "init_digest"]
        names += ["initial_sparsity", "final_sparsity", "ramp_begin", "ramp_end", "frequency"]
        names += ["validation_limit", "validations", "log_every", "keep"]
        if self.epsilon is not None:
            names.append("epsilon")
        names += ["ema", "rate_warmup", "rate_boundaries", "rate_factors", "rate_cycles"]
        found: dict[str, Any] = {name: getattr(neutral, name) for name in names}
        found["rate_schedule"] = "cosine" if self.scheduled() else "constant"  # of the shape, the state says the rest
        return dataclasses.replace(self, **found)


def rate_factors(settings: Settings) -> tuple[float, ...]:
    """What the learning rate is multiplied by at each of its boundaries.

    Raises:
      SettingError: factors outside [0, 1], or neither one nor as many as there are boundaries.

    >>> rate_factors(Settings()), rate_factors(Settings(rate_factors="0.1,0.5"))
    ((0.1, 0.1), (0.1, 0.5))
    """
    count = len(parse_fractions("--rate-boundaries", settings.rate_boundaries))
    factors = tuple(parse_number("--rate-factors", part) for part in settings.rate_factors.split(","))
    _require(settings, "rate_factors", all(0 <= factor <= 1 for factor in factors), "numbers in [0, 1]")
    _require(settings, "rate_factors", len(factors) in (1, count), f"one, or one for each of {count} --rate-boundaries")
    return factors if len(factors) == count else factors * count


def schedule_of(name: str) -> Schedule:
    """The schedule of that name."""
    return dict(SCHEDULES)[name]


def _require(settings: Settings, name: str, fits: bool, expected: str) -> None:
    if not fits:
        raise SettingError("--" + name.replace("_", "-"), getattr(settings, name), expected)


def _one_of(names: tuple[str, ...]) -> str:
    return "one of " + ", ".join(names) + " or package.module:factory"
