"""The options of every kind of budget, training attack, loss, pruner and optimiser: what they are, and which values make sense.

A kind's options are a frozen dataclass; its docstrings are the help of the command line, and what two kinds inherit from one base
means the same in both. Nothing here needs jax, so that help is there at once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bap_jax.errors import SettingError
from bap_jax.runs.parsing import Counts, Radius, format_radius, is_radius, parse_fractions

if TYPE_CHECKING:
    from bap_jax.runs.settings import Settings

Objective = Literal["auto", "cross-entropy", "kl", "soft-margin"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a kind, none by themselves."""

    SLOT: ClassVar[str]
    FRACTIONS: ClassVar[tuple[str, ...]] = ()  # names of options in [0, 1]
    POSITIVE: ClassVar[tuple[str, ...]] = ()  # finite and above 0, or not given
    FROM_ZERO: ClassVar[tuple[str, ...]] = ()  # finite and at least 0
    COUNTS: ClassVar[tuple[str, ...]] = ()  # whole numbers of at least 1, or not given

    def check(self, run: Settings) -> None:
        """Refuses values that make no sense by themselves or with the other settings of a run.

        Raises:
          SettingError: for the first of them.
        """
        for name in self.FRACTIONS:
            self.require(name, 0 <= getattr(self, name) <= 1, "a number in [0, 1]")
        for name in self.given(self.COUNTS):
            self.require(name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in self.given(self.POSITIVE):
            self.require(name, 0 < getattr(self, name) < math.inf, "a finite number above 0")
        for name in self.FROM_ZERO:
            self.require(name, 0 <= getattr(self, name) < math.inf, "a finite number of at least 0")

    def require(self, name: str, fits: bool, expected: str) -> None:
        """Refuses the value of an option that does not fit."""
        if not fits:
            raise SettingError(self.spoken(name), getattr(self, name), expected)

    def spoken(self, name: str) -> str:
        """An option as the command line calls it."""
        return f"--{self.SLOT}.{name.replace('_', '-')}"

    def given(self, names: tuple[str, ...]) -> list[str]:
        """Those of the options that are not None."""
        return [name for name in names if getattr(self, name) is not None]

    def values(self) -> dict[str, Any]:
        """Every option with its value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def changed(self) -> dict[str, Any]:
        """Those that depart from what they are by default."""
        default = type(self)()
        return {name: value for name, value in self.values().items() if value != getattr(default, name)}

    def called(self, label: str) -> tuple[str, tuple[str, ...]]:
        """How an arm of this kind is called, and the options that this says already."""
        return label, ()

    def radii(self) -> dict[str, float]:
        """The radii that are given, by their name on the command line: none may be wider than the box of the images."""
        return {self.spoken(name): getattr(self, name) for name in self.given(radius_options(type(self)))}


def types_of(kind: type[Options]) -> dict[str, Any]:
    """Every option of a kind with its type, marks included."""
    hashable: Any = kind  # a class is, whatever its instances are
    return _types_of(hashable)


@functools.cache
def _types_of(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def radius_options(kind: type[Options]) -> tuple[str, ...]:
    """The options of a kind that are radii."""
    return tuple(name for name, hint in types_of(kind).items() if is_radius(hint))


def shared(options: Options, kind: type[Options]) -> dict[str, Any]:
    """The values that another kind takes over: of options that both have from the same base."""
    bases = {name: _base_of(type(options), name) for name in types_of(type(options))}
    return {name: getattr(options, name) for name in types_of(kind) if bases.get(name) is _base_of(kind, name)}


def _base_of(kind: type, name: str) -> type:
    """The class that an option of a kind was written in."""
    return next(base for base in reversed(kind.__mro__) if name in inspect.get_annotations(base))


@dataclasses.dataclass(frozen=True)
class Own(Options):
    """The options that a ``package.module:factory`` was given: which ones it has, the factory says, once it is imported."""

    given_options: tuple[tuple[str, Any], ...] = ()

    def values(self) -> dict[str, Any]:
        return dict(self.given_options)

    def changed(self) -> dict[str, Any]:
        return self.values()

    def radii(self) -> dict[str, float]:
        return {}  # they may mean anything

    def with_values(self, values: Mapping[str, Any]) -> Own:
        """The same with other values besides."""
        return Own(tuple(sorted((self.values() | {name: _hashable(value) for name, value in values.items()}).items())))


def _hashable(value: Any) -> Any:
    """Lists as tuples, and a mapping as its pairs."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


# Budgets: which adversarial examples training sees.


@dataclasses.dataclass(frozen=True)
class BudgetOptions(Options):
    """Of a budget."""

    SLOT: ClassVar[str] = "budget"
    PUBLISHED_IN_LINF: ClassVar[tuple[str, ...]] = ()  # radii that have to be given in other norms

    def check(self, run: Settings) -> None:
        super().check(run)
        for name in self.PUBLISHED_IN_LINF if run.norm != "linf" else ():
            expected = f"a radius, with --budget {run.budget} --norm {run.norm}"
            self.require(name, getattr(self, name) is not None, expected)


@dataclasses.dataclass(frozen=True)
class Clean(BudgetOptions):
    """No adversarial examples."""

    def check(self, run: Settings) -> None:
        super().check(run)
        if run.knows("loss") and run.row("loss").attacks:
            others = " or ".join(run.losses_of_clean_images())
            raise SettingError("--loss", run.loss, f"{others} with --budget none, which makes no adversarial examples")


@dataclasses.dataclass(frozen=True)
class _WithRadius(BudgetOptions):
    epsilon: Radius | None = None
    """The radius, in pixel units in [0, 1], e.g. 0.3 or 8/255. Of fat the ball's, by default 0.031; of iaat that of the warm-up,
    by default 8/255."""

    FROM_ZERO_IF_GIVEN: ClassVar[tuple[str, ...]] = ("epsilon",)

    def check(self, run: Settings) -> None:
        for name in self.given(self.FROM_ZERO_IF_GIVEN):
            self.require(name, 0 <= getattr(self, name) < math.inf, "a number of at least 0")
        super().check(run)


@dataclasses.dataclass(frozen=True)
class Uniform(_WithRadius):
    """One radius for all examples, which has to be given."""

    def check(self, run: Settings) -> None:
        self.require("epsilon", self.epsilon is not None, "a radius: --budget uniform prescribes one, e.g. --budget.epsilon 0.3")
        super().check(run)

    def called(self, label: str) -> tuple[str, tuple[str, ...]]:
        return f"{label} {'None' if self.epsilon is None else format_radius(self.epsilon)}", ("epsilon",)


@dataclasses.dataclass(frozen=True)
class CutoffScale(BudgetOptions):
    """Blind: a budget per example, estimated, cut and scaled."""

    search: Literal["pgd", "deepfool"] = "pgd"
    """How the margin of an example is found: a short unrestricted `pgd` and a search along its path, or `deepfool`."""
    search_steps: int | None = None
    """Steps of that search; by default 1 for pgd and 5 for deepfool."""
    num_bisections: int = 6
    """Forward passes of the search along the path of pgd."""
    path: Literal["ball", "ray"] = "ball"
    """The way that the search of pgd goes: `ball`, through the balls of all radii, each feature up to its wall; or `ray`,
    straight to the far point inside the box."""
    halving: Literal["log", "linear"] = "log"
    """Whether the search halves the logarithm of the radius between epsilon-max/512 and epsilon-max, and so knows small margins
    as well as large ones, or the radius itself, to epsilon-max/2^bisections."""
    example: Literal["fresh", "rescaled"] = "fresh"
    """Attack afresh at the estimated budget, or rescale the perturbation that was found."""
    cutoff: str = "mean"
    """Where margins are cut: `mean` (of the batch), `quantile:LEVEL`, `running-mean:DECAY`, `constant:RADIUS`, `off`."""
    cutoff_over: Literal["all", "right"] = "all"
    """Whose margins the cutoff is a mean or quantile of: `all`, a wrong example's being 0, or the `right` ones'."""
    wrong: str = "cutoff"
    """What an image gets that is misclassified already: `cutoff` (rho times the cutoff), `zero`, or `floor:FRACTION` (that
    fraction of it). DeepFool pushes such an image on and asks nothing of this."""
    scale: float = 1.2
    """The factor rho on the cut margins."""
    epsilon_max: Radius | None = None
    """Radius of the unrestricted search, and the margin of an example that nothing fools; by default the width of the box, so
    that the search is not restricted."""

    COUNTS: ClassVar[tuple[str, ...]] = ("search_steps",)
    POSITIVE: ClassVar[tuple[str, ...]] = ("scale", "epsilon_max")

    def check(self, run: Settings) -> None:
        from bap_jax.budgets import parse_cutoff, parse_wrong

        super().check(run)
        self.require("num_bisections", self.num_bisections >= 0, "a whole number of at least 0")
        for name, parse in (("cutoff", parse_cutoff), ("wrong", parse_wrong)):
            try:
                parse(getattr(self, name))
            except SettingError as error:
                raise SettingError(self.spoken(name), error.value, error.expected) from None
        if run.norm in ("l2", "l1"):
            self.require("epsilon_max", self.epsilon_max is not None, f"a radius, with --norm {run.norm}")
        self._check_search(parse_cutoff(self.cutoff).kind)
        if self.example == "rescaled" and run.norm == "l1":
            raise SettingError("--norm", run.norm, "linf, l2 or rms with --budget.example rescaled")

    def _check_search(self, kind: str) -> None:
        default = CutoffScale()
        if self.search == "deepfool":
            for name in ("path", "halving", "wrong", "cutoff_over"):
                untold = getattr(self, name) == getattr(default, name)
                expected = "nothing with --budget.search deepfool, which walks no path and pushes wrong images on"
                self.require(name, untold, expected)
            return
        least = 1 if self.halving == "log" else 0
        self.require("num_bisections", self.num_bisections >= least, f"at least {least} with --budget.halving {self.halving}")
        if kind in ("off", "constant"):
            expected = f"all with --budget.cutoff {self.cutoff}, which is no mean"
            self.require("cutoff_over", self.cutoff_over == default.cutoff_over, expected)
        if kind == "off":
            expected = "cutoff or zero with --budget.cutoff off, which leaves nothing to take a fraction of"
            self.require("wrong", not self.wrong.startswith("floor"), expected)

    def called(self, label: str) -> tuple[str, tuple[str, ...]]:
        """The arms of the paper: ``unrestricted by DeepFool`` is adversarial pruning without a budget; ``blind by DeepFool`` cuts
        and scales what DeepFool found, ``blind by DeepFool, cut only`` and ``..., scale only`` do one of the two.
        """
        by, said = "", []
        if self.search == "deepfool" and self.example == "rescaled":
            by, said = " by DeepFool", ["search", "example"]
        cut, scaled = self.cutoff != "off", self.scale != 1
        if not cut and not scaled:
            return f"unrestricted{by}", (*said, "cutoff", "scale")
        if not cut:
            return f"{label}{by}, scale only", (*said, "cutoff")
        if not scaled:
            return f"{label}{by}, cut only", (*said, "scale")
        return f"{label}{by}", tuple(said)

    def radii(self) -> dict[str, float]:
        from bap_jax.budgets import parse_cutoff

        cutoff = parse_cutoff(self.cutoff)
        return super().radii() | ({"--budget.cutoff constant": cutoff.value} if cutoff.kind == "constant" else {})


@dataclasses.dataclass(frozen=True)
class MMA(BudgetOptions):
    """Margins, found again in every epoch."""

    epsilon_min: Radius | None = None
    """Least radius that is attacked at; by default 0.005."""
    epsilon_max: Radius | None = None
    """d_max, the largest margin; by default 32/255."""
    num_bisections: int = 6
    """Forward passes of the search along the path of pgd; published with 10."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("epsilon_min", "epsilon_max")
    PUBLISHED_IN_LINF: ClassVar[tuple[str, ...]] = ("epsilon_min", "epsilon_max")

    def check(self, run: Settings) -> None:
        super().check(run)
        self.require("num_bisections", self.num_bisections >= 0, "a whole number of at least 0")


@dataclasses.dataclass(frozen=True)
class IAAT(_WithRadius):
    """A budget per example that grows while its neighbours are right."""

    epsilon_step: Radius | None = None
    """gamma, by how much an example's budget goes up or down; by default 1.9/255."""
    epsilon_rate: float = 0.1
    """beta, the share of the new in the running mean of an example's budget."""
    epsilon_warmup: float = 1 / 11
    """Fraction of training at epsilon, before budgets adapt; 10 of 110 epochs as published."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("epsilon_step",)
    FRACTIONS: ClassVar[tuple[str, ...]] = ("epsilon_warmup",)
    PUBLISHED_IN_LINF: ClassVar[tuple[str, ...]] = ("epsilon", "epsilon_step")

    def check(self, run: Settings) -> None:
        super().check(run)
        self.require("epsilon_rate", 0 < self.epsilon_rate <= 1, "a number in (0, 1]")


@dataclasses.dataclass(frozen=True)
class CAT(BudgetOptions):
    """A budget per example that grows while it is classified right, and softer labels with it."""

    epsilon_step: Radius | None = None
    """eta, by how much an example's budget goes up; by default 0.005."""
    epsilon_max: Radius | None = None
    """The cap on budgets; by default 8/255."""
    label_factor: float = 10.0
    """c, the share of a label that is drawn at random, per unit of epsilon."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("epsilon_step", "epsilon_max")
    FROM_ZERO: ClassVar[tuple[str, ...]] = ("label_factor",)
    PUBLISHED_IN_LINF: ClassVar[tuple[str, ...]] = ("epsilon_step", "epsilon_max")


@dataclasses.dataclass(frozen=True)
class FAT(_WithRadius):
    """Attacks that stop once an example fails."""

    tau_rises: str = "50/120,90/120"
    """Fractions of training at which tau goes up by one: how many tests an example fails before its attack stops."""

    PUBLISHED_IN_LINF: ClassVar[tuple[str, ...]] = ("epsilon",)

    def check(self, run: Settings) -> None:
        super().check(run)
        parse_fractions(self.spoken("tau_rises"), self.tau_rises)
        check_friendly(run, "--budget fat")


def check_friendly(run: Settings, reason: str) -> None:
    """Refuses what friendly PGD does not do: another attack than PGD, and the norm L1."""
    if run.attack != "pgd":
        raise SettingError("--attack", run.attack, f"pgd with {reason}")
    if run.norm == "l1":
        raise SettingError("--norm", run.norm, f"linf, l2 or rms with {reason}")


# Attacks: what makes the training examples.


@dataclasses.dataclass(frozen=True)
class AttackOptions(Options):
    """Of the attack that makes the training examples."""

    SLOT: ClassVar[str] = "attack"

    @property
    def gradients(self) -> int:
        """How many gradients make an example."""
        return 1


@dataclasses.dataclass(frozen=True)
class _WithObjective(AttackOptions):
    objective: Objective = "auto"
    """What the attack maximises: `cross-entropy`, `kl` (the divergence from the clean prediction; starts near the image),
    `soft-margin`; `auto` is soft-margin with --budget mma, kl with --loss trades, and else cross-entropy."""

    def check(self, run: Settings) -> None:
        super().check(run)
        if run.attack_objective == "kl" and run.attacks:
            check_friendly(run, "the objective kl")


@dataclasses.dataclass(frozen=True)
class _Steps(AttackOptions):
    num_steps: int = 7
    """Steps of the attack. Other budgets and losses than blind ones were published with 10."""
    step_size: float | None = None
    """Step as a fraction of epsilon; by default 2.5 / steps, with iaat in linf 2 / steps but at least 2/255, and 7/31 with fat
    and with the objective kl."""


@dataclasses.dataclass(frozen=True)
class PGD(_WithObjective, _Steps):
    """Several steps, from a random start."""

    COUNTS: ClassVar[tuple[str, ...]] = ("num_steps",)
    POSITIVE: ClassVar[tuple[str, ...]] = ("step_size",)

    @property
    def gradients(self) -> int:
        return self.num_steps


@dataclasses.dataclass(frozen=True)
class FGSM(_WithObjective):
    """One step of the length of the budget."""


@dataclasses.dataclass(frozen=True)
class RSFGSM(_WithObjective):
    """One step from a random point of the ball (Wong et al. 2020)."""

    step_size: float = 1.25
    """Step as a fraction of epsilon."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("step_size",)


@dataclasses.dataclass(frozen=True)
class NFGSM(_WithObjective):
    """One step from the image with noise, beyond the ball of the budget by design (de Jorge et al. 2022)."""

    noise: float = 2.0
    """Radius of the noise as a multiple of epsilon."""
    step_size: float = 1.0
    """Step as a fraction of epsilon."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("noise", "step_size")


# Losses: what training minimises.


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """Of a loss."""

    SLOT: ClassVar[str] = "loss"


@dataclasses.dataclass(frozen=True)
class _Beta(LossOptions):
    beta: float = 6.0
    """Factor of the divergence between clean and attacked prediction."""

    FROM_ZERO: ClassVar[tuple[str, ...]] = ("beta",)


@dataclasses.dataclass(frozen=True)
class Smoothed(LossOptions):
    """Cross-entropy with smoothed labels."""

    label_smoothing: float = 0.1
    """Label smoothing of training labels: the blind paper's. The other budgets and losses were published with 0."""

    FRACTIONS: ClassVar[tuple[str, ...]] = ("label_smoothing",)


@dataclasses.dataclass(frozen=True)
class Mix(Smoothed):
    """Part clean, part adversarial."""

    adversarial_weight: float = 0.5
    """Share of the adversarial part; 1 trains on adversarial examples alone."""

    FRACTIONS: ClassVar[tuple[str, ...]] = ("adversarial_weight", "label_smoothing")


@dataclasses.dataclass(frozen=True)
class Divergence(Smoothed, _Beta):
    """Clean examples, and how far the prediction moves under attack."""


@dataclasses.dataclass(frozen=True)
class Distill(LossOptions):
    """The network keeps the predictions of a frozen one; neither labels nor adversarial examples."""

    alpha: float = 10.0
    """Factor of the divergence from the teacher."""
    temperature: float = 30.0
    """What both predictions are divided by."""
    teacher: str = "auto"
    """Whose predictions: `start`, the network that the run started from, or the name of a finished phase; `auto` is the phase
    pretrain, if there was one, else start."""

    FROM_ZERO: ClassVar[tuple[str, ...]] = ("alpha",)
    POSITIVE: ClassVar[tuple[str, ...]] = ("temperature",)


@dataclasses.dataclass(frozen=True)
class DistillHSIC(Distill):
    """Distillation, and an information bottleneck on the features that the network offers."""

    lambda_x: float = 2e-4
    """Factor of the dependence of features on images."""
    lambda_y: float = 5e-5
    """Factor of the dependence of features on labels."""
    sigma: float = 5.0
    """Width of the Gaussian kernels."""
    regulariser: float = 1e-5
    """What is added to the kernels before they are inverted, per example."""

    FROM_ZERO: ClassVar[tuple[str, ...]] = ("alpha", "lambda_x", "lambda_y")
    POSITIVE: ClassVar[tuple[str, ...]] = ("temperature", "sigma", "regulariser")


# Pruners: which weights stay.


@dataclasses.dataclass(frozen=True)
class PrunerOptions(Options):
    """Of a pruner; sparsity and ramp are settings of the run."""

    SLOT: ClassVar[str] = "pruner"
    GRADIENTS: ClassVar[int] = 1  # of the weights in a step; 2 where the pruner ascends first


@dataclasses.dataclass(frozen=True)
class _Scoped(PrunerOptions):
    scope: Literal["layer", "global"] = "layer"
    """Whether weights compete within their layer or over the whole network."""


@dataclasses.dataclass(frozen=True)
class Magnitude(_Scoped):
    """The largest weights stay."""

    distribution: Literal["uniform", "erk"] = "uniform"
    """With scope layer: the same sparsity everywhere, or Erdos-Renyi-kernel."""


@dataclasses.dataclass(frozen=True)
class Structured(PrunerOptions):
    """The structures of highest score stay; the sparsity is a share of them."""

    structure: str = "filter"
    """What is pruned as one: `filter` (an output channel with its bias and BatchNorm), `channel` (an input channel), `kernel`,
    `row`, `column`, `block`, or N of M weights, as `2:4`."""
    scope: Literal["layer", "coupled"] = "layer"
    """Each `layer` by itself, or the `coupled` channels of several layers as one, which is what bap compact can cut."""
    criterion: Literal["l1", "l2", "mean", "batch_norm", "random"] = "l1"
    """What a structure is worth: the sum of its magnitudes, their root of squares or `mean`, its BatchNorm scale, or chance."""
    ranking: Literal["local", "global"] = "local"
    """Whether structures compete within their layer or family, or over the whole network."""
    block: Counts = (4, 4)
    """Rows and columns of a block."""
    keep_one: bool = True
    """At least one structure of every layer or family stays."""

    def check(self, run: Settings) -> None:
        from bap_jax.mathematics.group_masks import check_structure

        super().check(run)
        structure = "row" if self.structure == "weight" and isinstance(self, AtStart) else self.structure  # the same rules
        try:
            check_structure(structure, self.scope, self.criterion, self.ranking, self.block)  # type: ignore[arg-type]
        except SettingError as error:
            raise SettingError(self.spoken(error.name), error.value, error.expected) from None


@dataclasses.dataclass(frozen=True)
class AtStart(Structured):
    """Chosen once, from the weights that a phase begins with."""

    structure: str = "weight"
    """What is pruned as one: a single `weight`, or `filter`, `channel`, `kernel`, `row`, `column`, `block`, `2:4` as with
    structured."""


@dataclasses.dataclass(frozen=True)
class Layered(PrunerOptions):
    """Which layers are pruned, and nothing else."""

    prunable: Literal["kernels", "convolutions"] = "kernels"
    """The layers that are pruned: all `kernels`, or `convolutions` alone."""


@dataclasses.dataclass(frozen=True)
class Scored(Layered):
    """Scores are trained, the weights being frozen."""

    structure: str = "irregular"
    """What is kept or pruned as one: single weights (`irregular`), as published, or the structures of --pruner structured,
    `filter`, `channel`, `kernel`, `row`, `column`, `block` (4 by 4) or `2:4`, of which the sparsity is then a share."""
    coupled: bool = False
    """With filters: the coupled channels of several layers as one, which is what bap compact can cut."""

    def check(self, run: Settings) -> None:
        super().check(run)
        if self.structure == "irregular":
            self.require("coupled", not self.coupled, "nothing with --pruner.structure irregular")
            return
        from bap_jax.mathematics.group_masks import check_structure

        self.require("prunable", self.prunable == "kernels", f"kernels with --pruner.structure {self.structure}")
        ranking = "global" if getattr(self, "scope", "layer") == "global" else "local"
        try:
            check_structure(self.structure, "coupled" if self.coupled else "layer", "l1", ranking, (4, 4))  # type: ignore[arg-type]
        except SettingError as error:
            name = {"ranking": "scope"}.get(error.name, error.name)
            raise SettingError(self.spoken(name), getattr(self, name), error.expected.replace("'local'", "layer")) from None


@dataclasses.dataclass(frozen=True)
class Hydra(_Scoped, Scored):
    """Scores are trained, the weights being frozen."""


@dataclasses.dataclass(frozen=True)
class S2AP(Hydra):
    """HYDRA's scores, at the worst place nearby."""

    gamma: float = 5e-3
    """How far scores are shifted, as a part of their norm in each layer."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("gamma",)
    GRADIENTS: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class RobustADMM(Layered):
    """Weights are drawn to sparse ones, then cut."""

    structure: Literal["irregular", "column", "filter"] = "irregular"
    """What is pruned of a layer: single weights, columns or filters."""
    every: int | None = None
    """Steps between two looks at the sparse weights; by default an epoch."""

    COUNTS: ClassVar[tuple[str, ...]] = ("every",)


@dataclasses.dataclass(frozen=True)
class ADMM(RobustADMM):
    """Weights are drawn to sparse ones, then cut; as PwoA sets it."""

    prunable: Literal["kernels", "convolutions"] = "convolutions"
    """The layers that are pruned: all `kernels`, or `convolutions` alone, as published."""
    rho: float = 0.01
    """How strongly, before the first growth."""
    rho_growth: float = 1.35
    """What rho grows by at each update of the dual variables."""
    rho_max: float = 1.0
    """Where rho stops growing."""
    dual_every: int = 3
    """How many looks make an update of the dual variables."""

    COUNTS: ClassVar[tuple[str, ...]] = ("every", "dual_every")
    POSITIVE: ClassVar[tuple[str, ...]] = ("rho",)

    def check(self, run: Settings) -> None:
        super().check(run)
        self.require("rho_growth", 1 <= self.rho_growth < math.inf, "a finite number of at least 1")
        self.require("rho_max", self.rho_max >= self.rho, f"at least --pruner.rho = {self.rho:g}")


@dataclasses.dataclass(frozen=True)
class FlyingBird(Layered):
    """Masks that drop the smallest weights now and then and grow as many others."""

    every: int | None = None
    """Steps between changes of masks in the first half; by default 900 of 78,200, as published."""
    later_every: int | None = None
    """The same in the second half; by default 1,200 of 78,200."""
    growth: Literal["gradient", "random"] = "gradient"
    """Which weights return: those of the largest gradient, or random ones."""
    drop: float = 0.5
    """The share of a layer's weights that the first change drops."""
    final_drop: float = 0.005
    """The share that the last change drops; in between a cosine."""

    COUNTS: ClassVar[tuple[str, ...]] = ("every", "later_every")
    FRACTIONS: ClassVar[tuple[str, ...]] = ("drop", "final_drop")


@dataclasses.dataclass(frozen=True)
class FlyingBirdPlus(FlyingBird):
    """The same, denser or sparser as validation says."""

    begin_validation: int | None = None
    """How many validations go by before one decides; by default half of --validations, as published."""


@dataclasses.dataclass(frozen=True)
class HARP(Layered):
    """HYDRA's scores, and a rate for every layer that is trained with them."""

    gamma: float = 0.01
    """Factor of the excess of weights in the first epoch; it grows by as much in each."""
    initial: Literal["uniform", "erk"] = "uniform"
    """The rates at first: the same everywhere, or Erdos-Renyi's."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("gamma",)

    def check(self, run: Settings) -> None:
        super().check(run)
        if run.final_sparsity >= 1:
            raise SettingError("--final-sparsity", run.final_sparsity, "below 1 with --pruner harp")


@dataclasses.dataclass(frozen=True)
class TwinRep(Layered):
    """Weights as products of two factors."""

    cut: float = 0.1
    """When it prunes, as a fraction of training."""
    structure: Literal["irregular", "filter"] = "irregular"
    """Single weights, or filters."""
    initial: Literal["kaiming", "root"] = "kaiming"
    """The second factor at first: a random one, or, for networks that are trained already, the `root`."""

    FRACTIONS: ClassVar[tuple[str, ...]] = ("cut",)


@dataclasses.dataclass(frozen=True)
class RobustBird(Layered):
    """The dense network is trained until its largest weights stay the same ones."""

    prunable: Literal["kernels", "convolutions"] = "convolutions"
    """The layers that are pruned: all `kernels`, or `convolutions` alone, as published."""
    tolerance: float = 0.08
    """The share of entries in which masks of successive epochs may differ for it."""

    FRACTIONS: ClassVar[tuple[str, ...]] = ("tolerance",)


@dataclasses.dataclass(frozen=True)
class MAD(Layered):
    """Before the first step: what the loss under attack loses least by, to second order."""

    batches: int | None = None
    """How many batches of adversarial examples the saliency is averaged over; by default an epoch, as published."""
    mask_steps: int = 20
    """Steps of Adam that fit a mask to a batch."""
    mask_rate: float = 0.1
    """Their learning rate."""
    curvature: Literal["empirical", "fisher"] = "empirical"
    """The Fisher matrix with the labels, as published, or with what the network predicts."""

    COUNTS: ClassVar[tuple[str, ...]] = ("batches", "mask_steps")
    POSITIVE: ClassVar[tuple[str, ...]] = ("mask_rate",)


@dataclasses.dataclass(frozen=True)
class SensitiveFilters(Layered):
    """Before the first step: of each layer the filters that harm it no more than the others; sparsity is of all filters."""

    batches: int = 8
    """How many batches of adversarial examples the layers are tried on."""
    levels: int = 10
    """At how many shares of its filters each layer is tried."""

    COUNTS: ClassVar[tuple[str, ...]] = ("batches", "levels")


# Optimisers.


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """Of an optimiser."""

    SLOT: ClassVar[str] = "optimizer"


@dataclasses.dataclass(frozen=True)
class _Momentum(OptimizerOptions):
    momentum: float = 0.9
    """Momentum; 0 is none."""
    nesterov: bool = False
    """Nesterov's momentum."""


@dataclasses.dataclass(frozen=True)
class Rated(OptimizerOptions):
    """A rate and a decay."""

    learning_rate: float = 1e-3
    """Learning rate: what a schedule is a part of, its largest value."""
    weight_decay: float = 0.0
    """Weight decay: with adam and sgd L2, added to the gradient; with adamw decoupled from it."""

    POSITIVE: ClassVar[tuple[str, ...]] = ("learning_rate",)
    FROM_ZERO: ClassVar[tuple[str, ...]] = ("weight_decay",)


@dataclasses.dataclass(frozen=True)
class SGD(Rated, _Momentum):
    """Stochastic gradient descent."""

    def check(self, run: Settings) -> None:
        super().check(run)
        self.require("momentum", 0 <= self.momentum < 1, "a number in [0, 1)")
        self.require("nesterov", not self.nesterov or self.momentum > 0, "a --optimizer.momentum above 0 with it")
