"""Everything a training run can be told: settings of the run, and what fills each slot with its options; checked before any work
starts. Reading this needs no jax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from bap_jax.errors import SettingError
from bap_jax.plugins import is_import_path
from bap_jax.runs.options import Options, Own, shared
from bap_jax.runs.parsing import format_radius, parse_epsilons, parse_fractions, parse_number, plain
from bap_jax.runs.phased import as_told, departures, in_full, merged, phase_settings, published
from bap_jax.runs.slots import (
    MOVED,
    OF_STEP,
    SLOTS,
    Row,
    check_name,
    check_own,
    names_of,
    old_default,
    place_of,
    row_of,
    told_options,
)

if TYPE_CHECKING:
    from bap_jax.mathematics.schedules import Ramp, Schedule
    from bap_jax.types import Bounds, Phase

__all__ = ["General", "Settings", "parse_epsilons", "parse_fractions", "parse_number", "rate_factors", "schedule_of"]

FLOAT_BITS = 32  # of a weight that is not quantised
AUTO = "auto"  # what follows from other settings, or from the data
SCHEMA = 3  # of config.json; docs/runs.md says what each was
# settings that may name the user's own code, and the names known here
PLUGINS: Mapping[str, tuple[str, ...]] = {slot: names_of(slot) for slot in SLOTS}
VARIED = ("seed", "initial_sparsity", "final_sparsity", "ramp_end", "frequency")  # leaves of the state that belong to no slot


@dataclasses.dataclass(frozen=True)
class General:
    """The settings of a training run besides what fills its slots."""

    method: str | None = None
    """A published method, whose settings are those by default; its phases have settings of their own, `--PHASE.SETTING`:
    --prune.epochs 20, --finetune.budget none. One of `nt`, `ap`, `bap`, `bap-authors`, `mma`, `iaat`, `cat`, `fat`, `madry`,
    `trades`, `mart`, `pwoa`, `pwoa-cifar10`, `pwoa-cifar100`, `hydra`, `s2ap`, `radmm`, `harp`, `flying_bird`,
    `flying_bird_plus`, `twin_rep`, `rst`, `robust_bird`, `li20`, `mad`, `sensitive_filters`, `adversarial_finetuning`,
    `adversarial_finetuning_int8`, `merkle`. By default none is named, and what stands here is bap."""
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
    """`mlp`, `lenet5`, `merkle_cnn`, `fitnet4`, `vgg16`, `vgg16_bn`, `vgg16_survey`, `resnet8`, `resnet18`, `resnet34`,
    `resnet50`, `preactresnet18`, `wideresnet`, `dm_wideresnet`, or `package.module:factory`."""
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
    --budget.epsilon), `mma` (margins, found again in every epoch), `iaat` and `cat` (budgets that grow and shrink per example),
    `fat` (attacks that stop early), `none` (clean training), or `package.module:factory`."""
    attack: str = "pgd"
    """The attack that makes the training examples: `pgd`, `fgsm`, `rs-fgsm` (from a random point of the ball), `n-fgsm` (from the
    image with noise, beyond the ball), or `package.module:factory`."""
    loss: str = "auto"
    """`mix` (part clean, part adversarial), `madry` (adversarial alone), `trades`, `mart`, `mma` (mix of 2/3), `clean`, `distill`
    (what a frozen network predicts), `distill_hsic` (with an information bottleneck), `package.module:factory`; `auto` is what
    goes with the budget: mix, clean with none, mma with mma, madry with iaat, cat and fat."""
    pruner: str = "magnitude"
    """`magnitude`, `structured` (whole filters, channels, blocks, ...), `at_start` (weights or structures, chosen once, from what
    a phase begins with), `dense` (no pruning), `fixed` (the masks that it begins with), `hydra`, `s2ap`, `harp`, `edge_popup`
    (trained scores), `admm`, `robust_admm`, `flying_bird`, `flying_bird_plus` (masks that drop and grow), `twin_rep` (two
    factors), `robust_bird` (masks drawn early), `mad` and `sensitive_filters` (masks found before the first step), or
    `package.module:factory`."""
    optimizer: str = "adam"
    """`adam`, `adamw`, `sgd`, or `package.module:factory`."""
    norm: Literal["linf", "l2", "l1", "rms"] = "linf"
    """The norm that budgets are measured in."""
    weight_bits: int = 32
    """Bits of a weight in the kernels that the network computes with: 32, floats; or 2 to 8, integers times a scale for each
    output channel, in every forward pass of training, attacks included (quantisation-aware training). With any --pruner."""
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
    epochs: int = 60
    """Passes over the training data; phases share them in published proportions."""
    steps: int | None = None
    """Training steps, instead of epochs."""
    patience: int | None = None
    """End a phase after so many epochs in a row without a smaller loss on validation data: the cross-entropy of
    --validation-limit clean images, once the network is as sparse as asked for. By default it has its full length."""
    batch_size: int = 128
    """Examples in a batch, over all devices."""
    microbatches: int = 1
    """Take the batch in so many chunks, one after the other: margins of all, the cutoff of the whole batch, then attacks and
    gradients chunk by chunk, added up. Less memory, and less time where a batch falls out of the cache. Without BatchNorm and
    dropout it changes nothing; BatchNorm normalises each chunk by itself."""
    attack_chunks: int = 1
    """Take margins and attacks in so many chunks, and the gradient of the whole batch at once: changes time and memory alone."""
    gradient_clip: float | None = None
    """Largest L2 norm of the gradient of all weights together; a longer one is scaled down to it. By default unlimited."""
    rate_schedule: Literal["constant", "linear", "cosine", "piecewise", "one-cycle", "cyclic", "staircase"] = "constant"
    """How the learning rate goes, step by step: linear and cosine fall to 0, piecewise falls at --rate-boundaries by
    --rate-factors, one-cycle rises from 1/25 and falls to 1/250000 along cosines, cyclic rises from 0 and falls
    back, in straight lines."""
    rate_warmup: float | None = None
    """Fraction of training in which the learning rate rises, from 0 in a straight line: by default 0. With one-cycle, along its
    own cosine: 0.3. With cyclic, the fraction of each cycle: 0.5."""
    rate_boundaries: str = "1/2,3/4"
    """Rate schedule piecewise: fractions of training at which the learning rate falls."""
    rate_factors: str = "0.1"
    """Rate schedule piecewise: what the learning rate is multiplied by, at every boundary or at each its own: 0.1,0.5."""
    rate_cycles: int = 1
    """Rate schedules cyclic and staircase: how often the learning rate rises and falls."""
    ema: float = 0.0
    """Decay of an exponential moving average of the pruned weights, e.g. 0.999; 0 keeps none. Its network is saved besides:
    --checkpoint ema."""
    augment: bool = False
    """Shift by up to 10 % and flip training images at random, as the paper does on CIFAR."""
    seed: int = 0
    """Seed of weights, batch order, augmentation and attacks."""
    validation_epsilon: str = AUTO
    """Radii, in --norm, at which validation measures robust accuracy; the best checkpoint has the largest mean. `auto` follows
    data and norm: in L∞ 0, 0.1, 0.2, 0.3 on grey images and 0, 2/255, 4/255, 8/255 on images in colour."""
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


@dataclasses.dataclass(frozen=True, init=False)
class Settings(General):
    """The settings of a training run: those of :class:`General`, and the options of what fills each slot.

    Args:
      **given: settings by their names. An option is given by its dotted name (``**{"budget.epsilon": 0.3}``), with the others of
        its slot (``budget_options=Uniform(0.3)``), or by the name that it had when all kinds shared one (``epsilon="0.3"``).
        Options of another kind than the slot's, as :func:`dataclasses.replace` gives them where a kind is replaced, leave what
        both kinds have from the same base (the learning rate of any optimiser); the others are as they are by default.

    Raises:
      SettingError: there is no such setting, or the kind in that slot has no such option, or one of another type.

    Example:
      >>> one = Settings(budget="uniform", epsilon="8/255", learning_rate=0.1)
      >>> one.budget_options, one.optimizer_options.learning_rate
      (Uniform(epsilon=0.03137254901960784), 0.1)
      >>> dataclasses.replace(one, optimizer="sgd").optimizer_options
      SGD(momentum=0.9, nesterov=False, learning_rate=0.1, weight_decay=0.0)
    """

    model_options: Any = None
    """Options of the network, as its kind has them."""
    budget_options: Any = None
    """Options of the budget, as its kind has them."""
    attack_options: Any = None
    """Options of the attack of training."""
    loss_options: Any = None
    """Options of the loss."""
    pruner_options: Any = None
    """Options of the pruner."""
    optimizer_options: Any = None
    """Options of the optimiser."""
    phases: Any = ()
    """What the phases of the method have otherwise than it and the run say; given as phase -> setting -> value."""

    def __init__(self, **given: Any):
        if given.pop("schema", SCHEMA) != SCHEMA:
            raise SettingError("schema", given, f"{SCHEMA}; bap_jax.runs.migrations reads those of before")
        phases = as_told(given.pop("phases", ()))
        if given.get("method") is not None:
            given = merged(published(given["method"], started=given.get("init_from") is not None), given)
        for field in dataclasses.fields(General):
            object.__setattr__(self, field.name, given.pop(field.name, field.default))
        starts = {slot: given.pop(f"{slot}_options", None) for slot in SLOTS}
        told: dict[str, dict[str, Any]] = {slot: {} for slot in SLOTS}
        for name, value in given.items():
            place = place_of(name)
            if place is None:
                raise SettingError(name, value, "a setting of bap train")
            if value is not None or name not in MOVED or place[1] in self.row(place[0]).options.__dataclass_fields__:
                told[place[0]][place[1]] = value  # what had no value was not given to kinds without it
        for slot in SLOTS:
            kind, start = self.row(slot).options, starts[slot]
            if type(start) is not kind:
                start = kind() if start is None or kind is Own else kind(**shared(start, kind))
            options = told_options(slot, self.kind(slot), start, told[slot]) if told[slot] else start
            object.__setattr__(self, f"{slot}_options", options)
        object.__setattr__(self, "phases", departures(self, phases) if self.method is not None or phases else ())

    def __getattr__(self, name: str) -> Any:
        """An option by the name that it had when all kinds shared one: for factories of one's own that read settings so."""
        if name not in MOVED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        slot, option = MOVED[name]
        value = self.options(slot).values().get(option, old_default(name))
        return format_radius(value) if name == "epsilon" and isinstance(value, float) else value  # it was a text

    def changed(self, **changes: Any) -> Settings:
        """The settings with others of these names in place, given as to :class:`Settings`.

        Example:
          >>> Settings(seed=1).changed(budget="uniform", **{"budget.epsilon": 0.3}).budget_options
          Uniform(epsilon=0.3)
        """
        if changes.get("method", self.method) == self.method:
            return Settings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | changes)
        return Settings(**self._own(Settings(method=changes["method"]), changes) | changes)

    def _own(self, new: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What departs from the defaults of this method, and has a meaning with a new one."""
        default = Settings(method=self.method, init_from=self.init_from)
        found = {}
        for name, value in self.as_dict().items():
            slot, dot, _ = name.partition(".")
            if name in ("schema", "method", "phases") or value == plain(default.value(name)):
                continue
            kind = changes.get(slot, getattr(self if slot in found else new, slot)) if dot else None
            if not dot or kind == getattr(self, slot):
                found[name] = value
        return found

    def alone(self, **changes: Any) -> Settings:
        """The same settings as those of one phase, without a method, with others of these names in place."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Settings(**own | {"method": None, "phases": ()} | changes)

    def in_phases(self) -> tuple[tuple[Phase, Settings], ...]:
        """The phases of the method with the settings of each, published or told; none of a method of a single phase.

        Example:
          >>> [(phase.name, own.epochs, own.pruner) for phase, own in Settings(method="hydra", epochs=22).in_phases()]
          [('pretrain', 10, 'dense'), ('prune', 2, 'hydra'), ('finetune', 10, 'fixed')]
        """
        return tuple(phase_settings(self, as_told(self.phases))) if self.method is not None else ()

    def deployed_bits(self) -> int:
        """Bits of a weight in the kernels of the network that training ends with: those of the last phase.

        Example:
          >>> Settings().deployed_bits(), Settings(method="hydra", phases={"finetune": {"weight_bits": 8}}).deployed_bits()
          (32, 8)
        """
        phases = self.in_phases()
        return phases[-1][1].weight_bits if phases else self.weight_bits

    def options(self, slot: str) -> Options:
        """The options of what fills a slot."""
        return getattr(self, f"{slot}_options")

    def kind(self, slot: str) -> str:
        """What fills a slot, ``auto`` resolved."""
        return self.loss_name if slot == "loss" else getattr(self, slot)

    def row(self, slot: str) -> Row:
        """The row of what fills a slot."""
        return row_of(slot, self.kind(slot))

    def knows(self, slot: str) -> bool:
        """Whether what fills a slot is no code of the user's own."""
        return not is_import_path(getattr(self, slot))

    def value(self, name: str) -> Any:
        """A setting by its name, options by their dotted one; None where the kind in that slot has no such option.

        Example:
          >>> Settings().value("budget.scale"), Settings().value("budget.epsilon"), Settings().value("seed")
          (1.2, None, 0)
        """
        slot, dot, option = name.partition(".")
        return self.options(slot).values().get(option) if dot else getattr(self, name)

    @property
    def attacks(self) -> bool:
        """Whether training sees adversarial examples, in any of its phases."""
        return any(own.row("budget").attacks for own in self._parts())

    def _parts(self) -> tuple[Settings, ...]:
        """The settings of each phase."""
        return tuple(own for _, own in self.in_phases()) or (self,)

    def losses_of_clean_images(self) -> list[str]:
        """The losses that need no adversarial examples."""
        return [name for name, row in SLOTS["loss"].items() if not row.attacks]

    def check(self) -> Settings:
        """Refuses what makes no sense, naming the setting, its value and what would be right.

        Raises:
          SettingError: for the first such setting.

        Example:
          >>> Settings(final_sparsity=1.5).check()
          Traceback (most recent call last):
              ...
          bap_jax.errors.SettingError: --final-sparsity = 1.5: expected a number in [0, 1]
        """
        for name in ("initial_sparsity", "final_sparsity", "ramp_begin", "ramp_end"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "a number in [0, 1]")
        _require(self, "ramp_end", self.ramp_end >= self.ramp_begin, f"at least --ramp-begin = {self.ramp_begin}")
        rises = self.final_sparsity >= self.initial_sparsity
        _require(self, "final_sparsity", rises, f"at least --initial-sparsity = {self.initial_sparsity}")
        counts = [
            "epochs",
            "batch_size",
            "microbatches",
            "attack_chunks",
            "validation_steps",
            "validation_limit",
            "validations",
            "log_every",
            "keep",
            "rate_cycles",
        ]
        counts += [name for name in ("steps", "frequency", "limit", "image_size", "patience") if getattr(self, name) is not None]
        for name in counts:
            _require(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        _require(self, "seed", 0 <= self.seed < 2**31, "a whole number in [0, 2^31)")
        bits = self.weight_bits
        _require(self, "weight_bits", bits == FLOAT_BITS or 2 <= bits <= 8, f"{FLOAT_BITS}, or a whole number from 2 to 8")
        _require(self, "ema", not self.ema or bits == FLOAT_BITS, "0 with --weight-bits: a mean of integers is none")
        clip = self.gradient_clip
        _require(self, "gradient_clip", clip is None or 0 < clip < math.inf, "a finite number above 0")
        for slot in SLOTS:
            check_name(slot, getattr(self, slot))
        for name in ("microbatches", "attack_chunks"):
            divides = self.batch_size % getattr(self, name) == 0
            _require(self, name, divides, f"a number that --batch-size = {self.batch_size} divides into")
        self.validation_radii()
        self._check_rate()
        for slot in SLOTS:
            self._check_options(slot)
        self._check_init()
        for phase, own in self.in_phases():
            try:
                own.check()
            except SettingError as error:
                raise SettingError(error.name.replace("--", f"--{phase.name}.", 1), error.value, error.expected) from None
        if not is_import_path(self.data):  # a data set of one's own may have other bounds; see check_radii
            from bap_jax.types import Bounds

            self.check_radii(Bounds())
        return self

    def validation_radii(self) -> tuple[float, ...] | None:
        """Those that were given; None for those that follow the data (:func:`bap_jax.runs.training_options.validation_radii`)."""
        return None if self.validation_epsilon == AUTO else parse_epsilons("--validation-epsilon", self.validation_epsilon)

    def check_radii(self, bounds: Bounds, image_shape: tuple[int, ...] | None = None) -> None:
        """Refuses radii wider than the box: with the data's own bounds and image shape once these are known.

        Raises:
          SettingError: with the fraction that was probably meant.

        Example:
          >>> from bap_jax.types import Bounds
          >>> Settings(epsilon_max=8.0).check_radii(Bounds())
          Traceback (most recent call last):
              ...
          bap_jax.errors.SettingError: --budget.epsilon-max = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?
        """
        from bap_jax.inputs import require_radius

        radii: dict[str, Any] = {"--validation-epsilon": self.validation_radii()}
        for name, radius in (radii | self.budget_options.radii()).items():
            require_radius(radius, self.norm, bounds, image_shape, name)
        for phase, own in self.in_phases():
            for name, radius in own.budget_options.radii().items():
                require_radius(radius, self.norm, bounds, image_shape, name.replace("--", f"--{phase.name}.", 1))

    def check_model(self) -> Settings:
        """Refuses a network that is none, or options that are none of its.

        Raises:
          SettingError: naming it.
        """
        check_name("model", self.model)
        self._check_options("model")
        return self

    def _check_options(self, slot: str) -> None:
        options = self.options(slot)
        if isinstance(options, Own):
            check_own(slot, getattr(self, slot), options)
        options.check(self)

    def _check_init(self) -> None:
        default = Settings()
        for name in ("init_checkpoint", "init_masks", "init_digest"):
            untold = getattr(self, name) == getattr(default, name)
            _require(self, name, untold or self.init_from is not None, "nothing without --init-from")
        known = self.init_checkpoint in ("last", "best") or self.init_checkpoint.isdecimal()
        _require(self, "init_checkpoint", known, "last, best or a step")

    def _check_rate(self) -> None:
        default, told = General(), lambda name: getattr(self, name) != getattr(default, name)
        _require(self, "ema", 0 <= self.ema < 1, "a number in [0, 1)")
        warmup = self.rate_warmup or 0.0
        _require(self, "rate_warmup", 0 <= warmup < 1, "a number in [0, 1)")
        cycles = ("cyclic", "staircase")
        for name, schedules in (("rate_boundaries", ("piecewise",)), ("rate_factors", ("piecewise",)), ("rate_cycles", cycles)):
            fits, those = self.rate_schedule in schedules or not told(name), " and ".join(schedules)
            _require(self, name, fits, f"nothing with --rate-schedule {self.rate_schedule}: it is a setting of {those}")
        boundaries = parse_fractions("--rate-boundaries", self.rate_boundaries)
        rise = boundaries and list(boundaries) == sorted(set(boundaries)) and boundaries[0] > 0 and boundaries[-1] < 1
        _require(self, "rate_boundaries", bool(rise), "fractions of training in (0, 1), each above the one before")
        if self.rate_schedule == "piecewise":
            expected = f"boundaries not before the warm-up's end, --rate-warmup = {warmup:g}"
            _require(self, "rate_boundaries", boundaries[0] >= warmup, expected)
        rate_factors(self)

    @property
    def attack_objective(self) -> str:
        """What the training attack maximises: ``cross-entropy``, ``kl`` or ``soft-margin``."""
        told = self.attack_options.values().get("objective", "auto")
        if told != "auto":
            return told
        found = [self.row(slot).auto.get("objective") for slot in ("budget", "loss")]
        return next((objective for objective in found if objective), "cross-entropy")

    @property
    def loss_name(self) -> str:
        """The loss, ``auto`` resolved."""
        return self.row("budget").auto.get("loss", "mix") if self.loss == "auto" else self.loss

    def num_steps(self, steps_per_epoch: int) -> int:
        """Training steps in all."""
        return self.steps if self.steps is not None else self.epochs * steps_per_epoch

    def ramp(self, num_steps: int) -> Ramp:
        """The ramp in steps; it ends at the last step at the latest, so that its final sparsity is reached."""
        from bap_jax.mathematics.schedules import Ramp

        begin, end = (min(round(fraction * num_steps), num_steps - 1) for fraction in (self.ramp_begin, self.ramp_end))
        end = begin if self.schedule == "one-shot" else end  # nothing is chosen again after the one shot
        frequency = self.frequency or max(1, min(100, (end - begin) // 20))
        return Ramp(self.initial_sparsity, self.final_sparsity, begin, end, frequency)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them, options by their dotted names; from them the same settings are made again.

        Example:
          >>> told = Settings(budget="uniform", epsilon="0.3").as_dict()
          >>> told["schema"], told["budget"], told["budget.epsilon"], Settings(**told).as_dict() == told
          (3, 'uniform', 0.3, True)
        """
        found: dict[str, Any] = {"schema": SCHEMA}
        for field in dataclasses.fields(General):
            found[field.name] = getattr(self, field.name)
            if field.name in SLOTS:
                found |= {f"{field.name}.{name}": plain(value) for name, value in self.options(field.name).values().items()}
        return found | {"phases": in_full(self)}

    def own_slots(self) -> bool:
        """Whether a slot of the train step is the user's own."""
        return any(is_import_path(getattr(own, name)) for own in self._parts() for name in OF_STEP)

    def names_code(self) -> bool:
        """Whether any slot, also of a single phase, is the user's own."""
        return not self.knows("model") or self.own_slots()

    def shares_step(self) -> bool:
        """Whether runs of equal :meth:`traced` settings share one compiled step: not where numbers or own code are built in."""
        return not self.own_slots() and all(self.row(slot).shares for slot in SLOTS)

    def scheduled(self) -> bool:
        """Whether the learning rate changes along training."""
        return self.rate_schedule != "constant" or bool(self.rate_warmup)

    def leaves(self) -> dict[str, Any]:
        """What the state carries of these settings, by dotted names, each with a value that a step can be compiled with.

        Runs of one vmapped group may differ in it.
        """
        default = General()
        found = {name: getattr(default, name) for name in VARIED}
        for slot in SLOTS:
            found |= {f"{slot}.{name}": value for name, value in self.row(slot).leaves.items()}
        return found

    def traced(self) -> Settings:
        """The same settings with everything neutral that compiled code takes from the state or never sees.

        Two runs whose traced settings are equal share one compiled step.
        """
        default = General()
        names = ["data_dir", "limit", "epochs", "steps", "image_size", "train_split", "test_split", "ramp_begin", "ema"]
        names += ["init_from", "init_checkpoint", "init_masks", "init_digest"]
        names += ["validation_limit", "validations", "log_every", "keep", "patience"]
        names += ["rate_warmup", "rate_boundaries", "rate_factors", "rate_cycles"]
        found = {name: getattr(default, name) for name in names} | self.leaves()
        found["rate_schedule"] = "cosine" if self.scheduled() else "constant"  # of the shape, the state says the rest
        return self.alone(**found)


def rate_factors(settings: General) -> tuple[float, ...]:
    """What the learning rate is multiplied by at each of its boundaries.

    Raises:
      SettingError: factors outside [0, 1], or neither one nor as many as there are boundaries.

    Example:
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
    from bap_jax.mathematics.schedules import SCHEDULES

    return dict(SCHEDULES)[name]


def _require(settings: General, name: str, fits: bool, expected: str) -> None:
    if not fits:
        raise SettingError("--" + name.replace("_", "-"), getattr(settings, name), expected)
