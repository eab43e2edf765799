"""What AutoAttack costs on a network trained for a moment: with convolutions of either form, and against PGD alone."""

from __future__ import annotations

import functools
from typing import Any

import jax

from bap_jax.bench.arms import Measured, Pair, Told, measured
from bap_jax.bench.step import RAMP_STEPS, TimedStep, first_batch, has_convolutions, network, read_data
from bap_jax.evaluation import EvaluationResult, evaluate_batches, named_threat
from bap_jax.evaluation.autoattack import autoattack
from bap_jax.mathematics.convolution import ConvKind
from bap_jax.runs.deployed import predictor
from bap_jax.runs.settings import Settings
from bap_jax.timing import Timed, sample

TRAINED, EPSILON = 100, 0.1  # steps, radius


def time_autoattack(settings: Settings, *, rounds: int, progress: Told, steps: int = TRAINED, queries: int = 5000) -> Measured:
    """Times AutoAttack on a batch, compilation apart.

    Args:
      settings: of the network, its training and the batch; checked.
      rounds: how often each arm is timed.
      progress: told of the rounds done.
      steps: of training; a new network leaves AutoAttack little to do.
      queries: of Square.

    Raises:
      SettingError: a batch larger than the training data.
    """
    source = read_data(settings)
    batch = first_batch(settings, source)
    trained = TimedStep(settings, source, network(settings, source), RAMP_STEPS)
    trained.go(steps)
    state = trained.state
    weights = trained.recipe.pruner.effective(state.trainable, state.prune), state.model_state
    cascade = autoattack(bounds=source.bounds, num_queries=queries)
    alone = named_threat("pgd", num_steps=100, bounds=source.bounds)

    def arm(threat: Any, conv: ConvKind) -> tuple[Timed, EvaluationResult]:
        predict = predictor(network(settings, source, conv=conv).apply)  # type: ignore[arg-type]  # functions hash
        given = predict, weights, [batch], [threat], [EPSILON], jax.random.key(0)
        attack = functools.partial(evaluate_batches, *given, controls=False)
        return lambda: sample(attack), attack()  # compiled now

    kinds: dict[str, tuple[Any, ConvKind]] = {"AutoAttack": (cascade, "fast"), "PGD-100": (alone, "fast")}
    pairs = [Pair("AutoAttack / PGD-100", "AutoAttack", "PGD-100")]
    if has_convolutions(trained):
        kinds["AutoAttack, plain convolutions"] = cascade, "plain"
        pairs.append(Pair("fast / plain convolutions", "AutoAttack", "AutoAttack, plain convolutions"))
    arms = {name: arm(*told) for name, told in kinds.items()}
    accuracy = {
        name: {"clean": found.clean_accuracy, "robust": float(next(iter(found.robust_accuracy.values()))[0])}
        for name, (_, found) in arms.items()
    }
    return measured(
        "autoattack",
        settings,
        {name: timed for name, (timed, _) in arms.items()},
        pairs,
        rounds=rounds,
        progress=progress,
        images=settings.batch_size,
        accuracy=accuracy,
        trained_steps=steps,
    )
