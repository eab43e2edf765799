"""What training a run costs: passes through the network for each image, counted from its settings, and time, from its metrics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bap_jax.evaluation import Passes
from bap_jax.runs import options
from bap_jax.runs.settings import Settings

BACKWARD = 2  # a backward pass in units of a forward one
ONE, BOTH = 1, 2  # images of an example that a loss looks at: the clean one, the adversarial one
LOOKS_AT = {"clean": ONE, "madry": ONE, "mix": BOTH, "mma": BOTH, "trades": BOTH, "mart": BOTH}
TAUGHT = ("distill", "distill_hsic")  # losses of the clean image alone, which a teacher looks at, too
NOTHING = Passes(0, 0)
OVER_TRAINING = ("mask_distance", "late_mask_distance", "peak_bytes_process", "peak_bytes_device")  # of the metrics


class StepPasses(NamedTuple):
    """Passes per image of one training step, as the compiled step makes them: what is asked for twice is made once."""

    search: Passes  # for the budget: of margins, and of what an example needs
    attack: Passes  # for the training example
    training: Passes  # for the gradient of the weights, the adversarial image included

    @property
    def weighted(self) -> float:
        """All of them in units of a forward pass, a backward one being two."""
        return sum(weighted(passes) for passes in self)


def weighted(passes: Passes) -> float:
    """Passes in units of a forward one.

    >>> weighted(Passes(7, 1))
    9
    """
    return passes.forward + BACKWARD * passes.backward


def step_passes(settings: Settings) -> StepPasses | None:
    """The passes per image of a training step; None where the settings do not say: code of one's own, a search by DeepFool, the
    budget iaat, whose attacks change along training, and weights that were imported.

    >>> step_passes(Settings(budget="uniform", epsilon="8/255", attack="n-fgsm", loss="madry"))
    StepPasses(search=Passes(forward=0, backward=0), attack=Passes(forward=1, backward=1), training=Passes(forward=1, backward=1))
    >>> step_passes(Settings()).weighted, step_passes(Settings(attack="n-fgsm")).weighted
    (36, 18)
    """
    loss, pruner, made = settings.loss_name, settings.pruner_options, _examples(settings)
    images = ONE if loss in TAUGHT else LOOKS_AT.get(loss)
    if images is None or made is None or not isinstance(pruner, options.PrunerOptions):
        return None
    if settings.loss_name == "mix" and settings.value("loss.adversarial_weight") == 1:
        images = ONE
    training = Passes(images * pruner.GRADIENTS, images * pruner.GRADIENTS)
    return StepPasses(*made, training._replace(forward=training.forward + (loss in TAUGHT)))


def mean_passes(settings: Settings, lines: Sequence[Mapping[str, Any]] = ()) -> dict[str, float] | None:
    """Passes per image of a step of a run, in units of a forward pass: the mean over its steps, where phases differ in them.

    Args:
      settings: of the run.
      lines: of its metrics.jsonl, which tell how long each phase was; without them as long as the settings say.

    Returns:
      ``search``, ``attack`` and ``training``; None where a phase's are not counted. What masks cost that are found before the
      first step (:mod:`bap_jax.runs.scoring`) is not among them.

    Example:
      >>> half = Settings(method="hydra", steps=22, epsilon=0.1, phases={"prune": {"budget": "none", "loss": "clean"}})
      >>> {name: round(passes, 2) for name, passes in mean_passes(half).items()}
      {'search': 0.0, 'attack': 27.27, 'training': 3.0}
    """
    parts = [(phase.name, own) for phase, own in settings.in_phases()] or [("", settings)]
    ends: dict[str, int] = {}
    for line in lines:
        ends[line.get("phase", "")] = max(ends.get(line.get("phase", ""), 0), int(line["step"]))
    total, sums = 0.0, dict.fromkeys(StepPasses._fields, 0.0)
    begin = 0
    for name, own in parts:
        made = step_passes(own)
        if made is None:
            return None
        length = float(own.steps or own.epochs) if not lines or len(parts) == 1 else ends.get(name, begin) - begin
        begin = max(begin, ends.get(name, begin))
        total += length
        for field in sums:
            sums[field] += length * weighted(getattr(made, field))
    return {field: value / total for field, value in sums.items()} if total else None


def _examples(settings: Settings) -> tuple[Passes, Passes] | None:
    """Of search and attack."""
    if not settings.row("budget").attacks:
        return NOTHING, NOTHING
    budget, attack = settings.budget_options, settings.attack_options
    if not isinstance(attack, options.AttackOptions):
        return None
    clean = settings.attack_objective == "kl"  # which looks at the clean prediction
    made = Passes(attack.gradients + clean, attack.gradients)
    match budget:
        case options.Uniform() | options.FAT():
            return NOTHING, made
        case options.CAT():
            return Passes(1, 0), made  # whether the attack succeeded
        case options.MMA():
            return Passes(1 + budget.num_bisections, 0), made  # whether the image is wrong already
        case options.CutoffScale(search="pgd"):
            steps = budget.search_steps or 1
            ends = (steps > 1) + (budget.halving == "linear")  # the image itself, unless its only step asks it; the far end
            return Passes(steps + ends + budget.num_bisections, steps), made if budget.example == "fresh" else NOTHING
    return None


def cost_of(settings: Settings, lines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The cost of a run as columns of its records.

    Args:
      settings: of the run.
      lines: of its metrics.jsonl, up to the checkpoint in question.

    Returns:
      ``passes_search``, ``passes_attack`` and ``passes_training`` per image of a step, in units of a forward pass, and
      ``passes``, their sum, means over steps; None where they are not counted. ``train_seconds`` up to the last line, compiling,
      validation and
      checkpoints included, and ``train_images_per_second``, of the median line; None without lines. Of runs that trained
      together both are of the whole group's steps. ``mask_distance``, the mean over epochs, ``late_mask_distance``, over the last
      tenth, and ``peak_bytes_process`` and ``peak_bytes_device``; None of runs that trained together.

    Example:
      >>> lines = [{"step": 10, "time_per_step": 0.5}, {"step": 20, "time_per_step": 0.25}, {"step": 20, "validation_mean": 0.5}]
      >>> cost_of(Settings(batch_size=100), [*lines, {"step": 30, "time_per_step": 0.25}])["train_seconds"]
      10.0
      >>> cost_of(Settings(batch_size=100), lines[1:])["train_images_per_second"]
      400.0
    """
    passes = mean_passes(settings, lines) if lines else None
    cost: dict[str, float | None] = {f"passes_{name}": None if passes is None else passes[name] for name in StepPasses._fields}
    measured = {name: [line[name] for line in lines if line.get(name) is not None] for name in OVER_TRAINING}
    moved = measured["mask_distance"]
    timed = [line for line in lines if line.get("time_per_step")]
    before = [0, *(int(line["step"]) for line in timed)]
    seconds = [(line["step"] - then) * line["time_per_step"] for line, then in zip(timed, before, strict=False)]
    pace = statistics.median(line["time_per_step"] for line in timed) if timed else None
    return cost | {
        "passes": None if passes is None else sum(passes.values()),
        "train_seconds": sum(seconds) if timed else None,
        "train_images_per_second": None if pace is None else settings.batch_size / pace,
        "mask_distance": statistics.fmean(moved) if moved else None,
        **{name: measured[name][-1] if measured[name] else None for name in OVER_TRAINING[1:]},
    }
