"""What to evaluate with: attacks, radii, examples and checkpoint, checked before any work starts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from bap_jax.errors import SettingError
from bap_jax.plugins import import_object, is_import_path
from bap_jax.runs.parsing import parse_epsilons, parse_number
from bap_jax.runs.region import check_region, region_mask, region_name

if TYPE_CHECKING:  # what attacks needs jax, and the command line's help does not
    from bap_jax.evaluation import Cascade
    from bap_jax.types import Bounds, Norm, Threat

GOALS = tuple(f"targeted:{rule}" for rule in ("random", "most_likely", "least_likely", "next"))
PGD_STEPS = 20
AVERAGE = "ema"  # the --checkpoint that means the averaged weights of the last


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """What to evaluate with; the same plan on the same checkpoint gives the same numbers."""

    attack: str = "pgd"
    """A comma list of: `pgd`, `fgsm`, `apgd-ce`, `apgd-dlr`, `apgd-t`, `square`, `noise`, `pgd0`, `sparse-rs`; of minimal norm
    `deepfool`, `fab`, `fab-t`, `bb`, `cw`, `ddn`, `fmn`, `ho-fmn`, `sigma-zero`; `autoattack`, `autoattack-plus`,
    `autoattack-rand`;
    `cascade:apgd-ce+square`, each on what those before it left; the paper's protocol, made once and cut to each radius,
    `deepfool-truncated` (norm rms) and `fgsm-truncated` (norm linf); `package.module:factory` that returns a Threat."""
    norm: str = "linf"
    """`linf`, `l2`, `l1`, `l0` (features) or `rms`, or a comma list: each attack is run in each norm of the list that it has."""
    epsilon: str = "0,0.1,0.2,0.3"
    """Radii in pixel units in [0, 1], a comma list; fractions such as 8/255 allowed. Of several norms each its own:
    `linf=0,8/255;l2=0.5,1`."""
    steps: int | None = None
    """Steps of the attacks; by default 20 of PGD, and what each of the others was published with."""
    queries: int | None = None
    """Queries of Square (also within a cascade) and Sparse-RS, samples of noise; by default 5,000, 10,000 and 100."""
    step_size: str | None = None
    """Step of PGD as a fraction of epsilon; by default 2.5 / steps."""
    restarts: int = 1
    """Restarts of the attacks that have them (PGD, APGD, FAB, Square, PGD0)."""
    limit: int | None = None
    """Only the first so many examples."""
    split: str = "test"
    """`test` or `validation`."""
    checkpoint: str = "last"
    """`last`, `best` (on validation data), a step, or `ema`: the averaged weights of the last, of a run with --ema."""
    seed: int = 0
    """Seed of random starts."""
    transfer_from: str | None = None
    """A comma list of other run folders, the dense network's for instance: attacks made on their networks are tried as well."""
    controls: bool = True
    """Check on one batch that more steps and noise change nothing, and that an unbounded attack breaks everything."""
    goal: str | None = None
    """What attacks want, if not any wrong answer: `targeted:random`, `targeted:most_likely`, `targeted:least_likely` or
    `targeted:next`, a class for each image. Accuracies are then the shares of all images that withstand."""
    top_k: int = 1
    """The label has to leave so many of the largest logits: 5 for the top five."""
    region: str | None = None
    """Where alone images may change: `patch:TOP,LEFT,HEIGHT,WIDTH` or `frame:WIDTH` in pixels, or a .npy file with a mask of
    bools [H, W] or of an image's shape."""
    max_passes: int | None = None
    """Minimal-norm attacks take as many steps as this number of forward and backward passes per image allows; AttackBench's is
    2000. What they made is counted."""
    count_passes: bool = False
    """Count the forward and backward passes per image that minimal-norm attacks make, on the first images."""

    def as_dict(self) -> dict[str, Any]:
        """The plan as records hold it: what came later is in it only where it is not as it was before."""
        later = ("goal", "top_k", "region", "max_passes", "count_passes")
        values = dataclasses.asdict(self)
        default = {field.name: field.default for field in dataclasses.fields(AttackPlan)}
        names = [field.name for field in dataclasses.fields(AttackPlan)]
        return {name: values[name] for name in names if name not in later or values[name] != default[name]}

    def check(self) -> AttackPlan:
        """Refuses what makes no sense, before any work starts.

        Raises:
          SettingError: naming the setting, its value and what would be right.
        """
        from bap_jax.types import NORMS

        for norm in self.norms:
            if norm not in NORMS:
                raise SettingError("--norm", self.norm, "linf, l2, l1, l0 or rms, or a comma list of them")
        if self.split not in ("test", "validation"):
            raise SettingError("--split", self.split, "test or validation")
        for name in ("steps", "queries", "restarts", "limit", "top_k", "max_passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"--{name.replace('_', '-')}", value, "a whole number of at least 1")
        if self.step_size is not None and not parse_number("--step-size", self.step_size) > 0:
            raise SettingError("--step-size", self.step_size, "a fraction of epsilon above 0")
        if self.checkpoint not in ("last", "best", AVERAGE) and not self.checkpoint.isdigit():
            raise SettingError("--checkpoint", self.checkpoint, "last, best, ema or a step")
        from bap_jax.types import Bounds

        self.epsilons()
        self.threats(Bounds())
        self._check_goal()
        if self.region is not None:
            check_region(self.region)
        return self

    def _check_goal(self) -> None:
        """Refuses goals and budgets of passes that the attacks cannot have."""
        from bap_jax.evaluation import ATTACKS, attack_settings

        names = [name.strip() for name in self.attack.split(",")]
        if self.goal is not None and self.goal not in GOALS:
            raise SettingError("--goal", self.goal, " or ".join(GOALS))
        if self.goal is not None and self.top_k > 1:
            raise SettingError("--top-k", self.top_k, "1 with --goal: the wanted class is answered, or it is not")
        wanted: dict[str, tuple[str, str | int | None]] = {
            "targeted": ("--goal", self.goal),
            "region": ("--region", self.region),
            "top_k": ("--top-k", self.top_k if self.top_k > 1 else None),
        }
        for setting, (option, value) in wanted.items():
            able = [name for name in ATTACKS if setting in attack_settings(name)]
            unable = [name for name in names if name not in able]
            if value is not None and unable:
                raise SettingError("--attack", unable[0], f"one of {', '.join(able)} with {option} {value}")
        if self.has_goal and self.transfer_from:
            raise SettingError("--transfer-from", self.transfer_from, "none with --goal and --top-k")
        minimal = [name for name in names if name in ATTACKS and ATTACKS[name].minimal]
        for option, given in (("--max-passes", self.max_passes), ("--count-passes", self.count_passes or None)):
            if given is not None and not minimal:
                known = ", ".join(name for name, kind in ATTACKS.items() if kind.minimal)
                raise SettingError(option, given, f"an attack of minimal norm: {known}")
        if self.max_passes is not None and self.steps is not None and set(minimal) == set(names):
            raise SettingError("--steps", self.steps, "none with --max-passes, which says how many there are")

    @property
    def has_goal(self) -> bool:
        """Whether attacks want something else than any wrong answer."""
        return self.goal is not None or self.top_k > 1

    @property
    def targets(self) -> Any:
        """How a targeted attack chooses the class that it wants, as :func:`bap_jax.attacks.choose_targets` calls it, or None."""
        return None if self.goal is None else self.goal.removeprefix("targeted:")

    @property
    def norms(self) -> tuple[str, ...]:
        return tuple(norm.strip() for norm in self.norm.split(","))

    def epsilons(self) -> dict[Norm, tuple[float, ...]]:
        """The radii of every norm."""
        if "=" not in self.epsilon:
            return {cast("Norm", norm): parse_epsilons("--epsilon", self.epsilon) for norm in self.norms}
        pairs = [part.partition("=") for part in self.epsilon.split(";")]
        found = {cast("Norm", norm.strip()): parse_epsilons("--epsilon", radii) for norm, _, radii in pairs}
        if set(found) != set(self.norms):
            raise SettingError("--epsilon", self.epsilon, f"radii for each norm of --norm {self.norm}, such as linf=0.1;l2=1")
        return found

    def check_radii(self, bounds: Bounds, image_shape: tuple[int, ...] | None = None) -> None:
        """Refuses radii wider than the box that images lie in: with their shape, if it is known, else where it does not matter.

        Raises:
          SettingError: with the fraction that was probably meant.

        Example:
          >>> from bap_jax.types import Bounds
          >>> AttackPlan(epsilon="0,8").check_radii(Bounds())
          Traceback (most recent call last):
              ...
          bap_jax.errors.SettingError: --epsilon = 8: expected at most 1, the linf size of the box [0, 1]; 8/255?
        """
        from bap_jax.inputs import require_radius

        for norm, radii in self.epsilons().items():
            require_radius(radii, norm, bounds, image_shape, "--epsilon")

    def threats(
        self, bounds: Bounds, image_shape: tuple[int, ...] | None = None, num_classes: int | None = None
    ) -> list[Threat | Cascade]:
        """The attacks named by ``--attack``, in every norm of ``--norm`` that they work in; limited to the region, and cut to the
        budget of passes, once the shape of an image and the number of classes are known.
        """
        return [threat for _, threat in self.threats_by_attack(bounds, image_shape, num_classes)]

    def threats_by_attack(
        self, bounds: Bounds, image_shape: tuple[int, ...] | None = None, num_classes: int | None = None
    ) -> list[tuple[str, Threat | Cascade]]:
        """The same, each with the name that ``--attack`` has for it."""
        from bap_jax.evaluation.named import parts_of

        names = [name.strip() for name in self.attack.split(",")]
        shown = (bounds, image_shape, num_classes)
        made = [(name, threat) for name in names for threat in self._in_every_norm(name, *shown)]
        parts = [part for name in names for part in parts_of(name, "--attack")]
        given = {"steps": self.steps, "queries": self.queries, "step_size": self.step_size}
        given |= {"restarts": self.restarts if self.restarts > 1 else None}
        for setting, value in given.items():
            if value is not None and not any(self._takes(part, setting) for part in parts):
                raise SettingError(
                    f"--{setting.replace('_', '-')}", value, f"no value with --attack {self.attack}, which has none"
                )
        return made

    def _in_every_norm(
        self, name: str, bounds: Bounds, image_shape: tuple[int, ...] | None, num_classes: int | None
    ) -> list[Threat | Cascade]:
        from bap_jax.evaluation.named import norms_of, parts_of

        parts = parts_of(name, "--attack")
        norms = [norm for norm in self.norms if all(norm in norms_of(part) for part in parts)]
        if not norms:
            wanted = "; ".join(f"{' or '.join(norms_of(part))} with --attack {part}" for part in dict.fromkeys(parts))
            raise SettingError("--norm", self.norm, wanted if len(parts) == 1 else f"a norm of every part of {name}: {wanted}")
        return [self._threat(name, cast("Norm", norm), bounds, image_shape, num_classes) for norm in norms]

    def _threat(
        self, name: str, norm: Norm, bounds: Bounds, image_shape: tuple[int, ...] | None, num_classes: int | None
    ) -> Threat | Cascade:
        from bap_jax.evaluation import ATTACKS, Cascade, cascade
        from bap_jax.evaluation.autoattack import AUTOATTACK
        from bap_jax.evaluation.named import CASCADE, parts_of
        from bap_jax.types import Threat

        if name in ATTACKS:
            if self.region is not None and image_shape is not None:
                return self._in_region(name, norm, bounds, image_shape)
            if self.max_passes is not None and image_shape is not None and num_classes is not None and ATTACKS[name].minimal:
                return self._within_passes(name, norm, bounds, image_shape, num_classes)
            return self._plain(name, norm, bounds)
        if name in AUTOATTACK:
            return self._autoattack(name, norm, bounds)
        if name.startswith(CASCADE):
            parts = parts_of(name, "--attack")
            return cascade(f"{'+'.join(parts)}-{norm}", [self._plain(part, norm, bounds) for part in parts])
        if is_import_path(name):
            threat = import_object("--attack", name)(norm=norm, bounds=bounds)
            if not isinstance(threat, (Threat, Cascade)):
                raise SettingError("--attack", name, f"a factory that returns a Threat, not a {type(threat).__name__}")
            return threat
        known = ", ".join([*ATTACKS, *AUTOATTACK])
        raise SettingError("--attack", name, f"{known}, {CASCADE}NAME+NAME, a comma list of them, or package.module:factory")

    def _autoattack(self, name: str, norm: Norm, bounds: Bounds) -> Cascade:
        """As published, or with the steps and queries of this plan, which its name then tells."""
        from bap_jax.evaluation.autoattack import AUTOATTACK, autoattack

        given = {"num_steps": self.steps, "num_queries": self.queries if self._takes(name, "queries") else None}
        given = {setting: value for setting, value in given.items() if value is not None}
        label = name + "".join(f"-{value}{'q' if setting == 'num_queries' else ''}" for setting, value in given.items())
        settings: dict[str, Any] = {"version": AUTOATTACK[name], "bounds": bounds, "name": f"{label}-{norm}", **given}
        return _renamed("--norm", lambda: autoattack(norm, **settings))

    def _takes(self, name: str, setting: str) -> bool:
        """Whether an attack, or AutoAttack, has a setting of this plan that is given."""
        from bap_jax.evaluation import ATTACKS
        from bap_jax.evaluation.autoattack import AUTOATTACK
        from bap_jax.evaluation.named import takes

        if name in AUTOATTACK:
            return setting in ("steps", "queries") and takes(name, f"num_{setting}")

        return name in ATTACKS and bool(self._settings(name, setting))

    def _plain(self, name: str, norm: Norm, bounds: Bounds, **more: Any) -> Threat:
        from bap_jax.evaluation import named_threat

        if name != "pgd":
            settings = self._settings(name) | more
            return _renamed("--attack", lambda: named_threat(name, norm=norm, bounds=bounds, **settings))
        steps = self.steps or PGD_STEPS
        label = f"pgd-{steps}" + (f"-x{self.restarts}" if self.restarts > 1 else "")
        label += f"-step-{self.step_size}" if self.step_size is not None else ""
        settings = {"num_steps": steps} | self._settings(name) | more
        return named_threat(name, norm=norm, bounds=bounds, name=f"{label}-{norm}", **settings)

    def settings_of(self, name: str, image_shape: tuple[int, ...]) -> dict[str, Any]:
        """The settings of an attack of the package under this plan, as :func:`bap_jax.named_threat` takes them."""
        settings = ({"num_steps": self.steps or PGD_STEPS} if name == "pgd" else {}) | self._settings(name)
        return settings if self.region is None else settings | {"region": region_mask(self.region, image_shape)}

    def _in_region(self, name: str, norm: Norm, bounds: Bounds, image_shape: tuple[int, ...]) -> Threat:
        """The same attack where only the region changes, and its name tells it."""
        assert self.region is not None
        made = self._plain(name, norm, bounds, region=region_mask(self.region, image_shape))
        return made._replace(name=f"{made.name.removesuffix(f'-{norm}')}-{region_name(self.region)}-{norm}")

    def _within_passes(self, name: str, norm: Norm, bounds: Bounds, image_shape: tuple[int, ...], num_classes: int) -> Threat:
        """A minimal-norm attack of as many steps as the budget of passes allows."""
        from bap_jax.evaluation import attack_settings, steps_of_budget

        assert self.max_passes is not None
        more = {"early_stop": False} if "early_stop" in attack_settings(name) else {}
        settings = {key: value for key, value in (self._settings(name) | more).items() if key != "num_steps"}
        shown = (name, norm, bounds, image_shape, num_classes)
        steps = _renamed("--max-passes", lambda: steps_of_budget(*shown, self.max_passes, **settings))
        return self._plain(name, norm, bounds, num_steps=steps, **more)

    def _settings(self, name: str, only: str | None = None) -> dict[str, Any]:
        """What of this plan an attack takes, under the attack's own names; of one setting alone, if ``only`` names it."""
        from bap_jax.evaluation import ATTACKS, attack_settings

        relative = None if self.step_size is None else parse_number("--step-size", self.step_size)
        mine = {
            "num_steps": ("steps", self.steps),
            "num_queries": ("queries", self.queries),
            "num_samples": ("queries", self.queries),
            "relative_step_size": ("step_size", relative),
            "restarts": ("restarts", self.restarts if self.restarts > 1 else None),
        }
        takes = attack_settings(name) if ATTACKS[name].truncated is None else ()  # a protocol has no settings
        return {
            setting: value
            for setting, (mine_name, value) in mine.items()
            if setting in takes and value is not None and only in (None, mine_name)
        }


def _renamed(setting: str, make: Any) -> Any:
    """The same error, told of the command line's setting."""
    try:
        return make()
    except SettingError as error:
        raise SettingError(setting, error.value, error.expected) from None
