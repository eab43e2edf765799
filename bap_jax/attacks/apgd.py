"""Auto-PGD: projected gradient ascent that sets its own step size, and its targeted form."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from bap_jax.attacks._apgd_ascent import (
    ApgdNorm,
    _ascend,
    _Ascent,
    _check,
    _first_success,
    _fold,
    _Goal,
    _nothing,
    _Outcome,
)
from bap_jax.attacks._inputs import admit, check_count, check_top_k
from bap_jax.attacks._region import limit_to_region
from bap_jax.attacks.pgd import Objective
from bap_jax.errors import SettingError
from bap_jax.mathematics.objectives import cross_entropy, successful
from bap_jax.mathematics.per_example import expand
from bap_jax.types import Array, AttackResult, Bounds


def apgd(
    logits_fn: Callable[..., Array],
    keys: Array | None,
    images: Array,
    labels: Array,
    *,
    epsilon: float | Array,
    norm: ApgdNorm = "linf",
    bounds: Bounds = Bounds(),
    num_steps: int = 100,
    restarts: int = 1,
    first_restart: int | Array = 0,
    targeted: bool = False,
    objective: Objective = cross_entropy,
    rho: float = 0.75,
    eot_samples: int = 1,
    random_logits: bool = False,
    start: Array | None = None,
    large_epsilon_schedule: bool = False,
    top_k: int = 1,
    region: Array | None = None,
) -> AttackResult:
    """Gradient ascent on a loss of the label within ball and box, with momentum and a step that halves where it stops paying.

    L∞, L2 and RMS: z = P(x_i + η·d), x_{i+1} = P(x_i + a·(z − x_i) + (1 − a)·(x_i − x_{i−1})), d = sgn(g) or g/‖g‖, a = 0.75 (1
    at the first step), P onto the ball, then the box; η = 2ε at first. Checkpoints stand after a first period of ⌊.22N⌋ steps
    and then after periods shorter by ⌊.03N⌋ each, ⌊.06N⌋ at least (all three ≥ 1). There η is halved, and the ascent goes on
    from the best point with its gradient, for the examples whose loss (C1) rose in at most ρ of the period's steps, or (C2)
    has the same maximum as at the last checkpoint, where η was kept. L1: sparse steps without momentum, projected on ball and
    box at once, see :mod:`bap_jax.attacks._apgd_l1`; a checkpoint every ⌊.04N⌋ steps.

    ``objective=bap_jax.mathematics.dlr`` is APGD-DLR. One forward and backward pass per step, and one at the start.

    Each row gets its first restart that met an adversarial point, and of that run the *latest* adversarial point met, the start
    included (the best point of an objective need not be misclassified). A row that never succeeds gets the point of the best
    objective over all restarts. Once every row has succeeded the remaining restarts are not run.

    Args:
      logits_fn: images [B, ...] to logits [B, K]; with ``random_logits`` it is called as ``logits_fn(images, keys)`` with [B]
        keys, one per row, fresh at every evaluation.
      keys: [B] typed keys, one per row; may be None where nothing is random (``start`` given, no ``random_logits``).
      images: [B, ...] floats inside ``bounds``.
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      epsilon: radius in the norm's units, a scalar or [B]; may be traced.
      norm: ``linf``, ``l2``, ``l1`` or ``rms``.
      bounds: the box.
      num_steps: N, gradient steps of one run, ≥ 1.
      restarts: how many runs; each folds its number into the keys.
      first_restart: the number of the first run, ≥ 0; may be traced: run r alone is ``first_restart=r, restarts=1``.
      targeted: make the network answer ``labels`` instead of anything else.
      objective: (logits, labels) to [B], larger = the label less believed; maximised, or minimised if ``targeted``.
      rho: ρ of C1; L1 has no use for it.
      eot_samples: how many evaluations of a random network are averaged per step: gradients, objectives, and the logits that
        say whether a point is misclassified. More than one needs ``random_logits``.
      random_logits: the network is random (see ``logits_fn``).
      start: [B, ...] where to begin, projected on ball and box. By default L∞: ε·t/max|t|, t uniform; L2 and RMS: ε·t/‖t‖, t
        normal; L1: the projection of a normal t; from the image.
      large_epsilon_schedule: L1 only: 30 % of the steps in the ball of 3ε, 30 % in that of 2ε, each phase from the best point
        of the one before, and only the points of the last 40 %, in the ball of ε, count.
      top_k: the label has to be among the k largest logits to count as recognised; for k > 1
        :func:`bap_jax.mathematics.top_k_margin_loss` is the objective that aims at it.
      region: bool, True where a feature may change, with the axes of ``images``, each as long or of length 1. One compiled
        program serves every region. None for everywhere.

    Returns:
      AttackResult: ``found`` where a point met was adversarial; ``loss`` [num_steps, B] is the objective after each step, of
        the run that is returned.

    Raises:
      SettingError: a shape, dtype or setting that cannot be, an objective with too few classes among them.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def linear(images):
      ...     return images @ jnp.array([[1.0, -1.0], [1.0, -1.0]])
      >>> images, labels = jnp.array([[0.75, 0.5]]), jnp.array([0])
      >>> box = Bounds(-1.0, 1.0)
      >>> apgd(linear, None, images, labels, epsilon=0.75, num_steps=5, bounds=box, start=images).images
      Array([[ 0.  , -0.25]], dtype=float32)

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
      algorithm 1; L1: Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers";
      constants as in the repository fra31/auto-attack.
    """
    ascent = _Ascent(norm, bounds, num_steps, rho, eot_samples, random_logits, large_epsilon_schedule)
    given = images
    logits_fn, images, labels, give = admit(logits_fn, images, labels, bounds, norm=norm, epsilon=epsilon)
    _check(ascent, keys, given, start)
    check_top_k(top_k, targeted)
    mask, box = limit_to_region(region, images, bounds)
    ascent = ascent._replace(bounds=box, region=mask)
    start = None if start is None else jnp.asarray(start, images.dtype)
    expand(epsilon, images)  # refuses other shapes
    check_count("restarts", restarts, 1)
    check_count("first_restart", first_restart, 0)
    if restarts > 1 and start is not None and not random_logits:
        raise SettingError("restarts", restarts, "1 with a given start: every restart would be the same")
    sign = -1 if targeted else 1

    goal = _Goal(
        lambda logits: sign * objective(logits, labels),
        lambda logits: successful(logits, labels, targeted=targeted, top_k=top_k),
    )

    def run(number: int | Array) -> _Outcome:
        return _ascend(ascent, goal, logits_fn, _fold(keys, number), images, epsilon, start)

    if restarts == 1:
        best = run(first_restart)
    else:
        nothing = _nothing(images, labels != labels, num_steps)
        best = _first_success(run, first_restart + jnp.arange(restarts), nothing)
    return give(best.images, best.found, sign * best.losses)
