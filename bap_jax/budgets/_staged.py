"""A budget from its three stages: what each row measures, what the batch agrees on, what each row gets."""

from __future__ import annotations

from collections.abc import Callable

from bap_jax.types import Adversarial, Array, Batch, Budget, Gather, LogitsFn, PyTree, RunInfo, Stages


def staged(
    init: Callable[[RunInfo], PyTree],
    measure: Callable[..., PyTree],
    agree: Callable[..., PyTree],
    give: Callable[..., Adversarial] | None = None,
) -> Budget:
    """The budget whose ``perturb`` is these stages one after the other.

    Args:
      init: see :class:`bap_jax.types.Budget`.
      measure, agree, give: see :class:`bap_jax.types.Stages`; without ``give``, what was measured is a pair that begins with the
        examples.
    """
    stages = Stages(measure, agree, give or _measured)

    def perturb(keys: Array, logits_fn: LogitsFn, batch: Batch, state: PyTree, *, step: Array, gather: Gather):
        measured = stages.measure(keys, logits_fn, batch, state, step=step)
        state = stages.agree(measured, batch, state, gather=gather)
        return stages.give(keys, logits_fn, batch, measured, state), state

    return Budget(init, perturb, stages=stages)


def _measured(keys: Array, logits_fn: LogitsFn, batch: Batch, measured: tuple, state: PyTree) -> Adversarial:
    return measured[0]
