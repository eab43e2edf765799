"""Checks that an evaluation makes on itself: on the model before it is believed, and on the attacks after they ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Status = Literal["passed", "warned", "failed"]


class Check(NamedTuple):
    """One check: what was looked at, how it came out, the value found, and what to do about it."""

    name: str
    status: Status
    value: str
    advice: str


def check_logits(probability_rows: int, num_examples: int) -> Check:
    """Outputs that are never negative and whose rows sum to one are probabilities: softmax a second time hides gradients.

    >>> check_logits(100, 100).status
    'failed'
    """
    advice = "" if probability_rows < num_examples else "return logits: leave the softmax out of the model"
    status: Status = "failed" if num_examples and probability_rows == num_examples else "passed"
    return Check("outputs are logits", status, f"{probability_rows} of {num_examples} rows look like probabilities", advice)


def check_finite(name: str, bad: int, num_examples: int, advice: str) -> Check:
    """Anything that is NaN or infinite fails.

    >>> check_finite("finite outputs", 0, 10, "").status
    'passed'
    """
    return Check(name, "failed" if bad else "passed", f"{bad} of {num_examples} not finite", advice if bad else "")


def check_gradients(zero: int, saturated: int, num_examples: int) -> Check:
    """A gradient that is zero leaves gradient attacks nothing to follow; one below the rounding of float32 leads them astray.

    Args:
      zero: examples whose input gradient is exactly zero. More than one in a hundred fails.
      saturated: examples where the cross-entropy's gradient is less than 1e-7 of the margin's. More than one in a hundred warns.
      num_examples: how many examples there are.

    Returns:
      Check.

    >>> check_gradients(1, 0, 50).status, check_gradients(0, 1, 50).status
    ('failed', 'warned')
    """
    value = f"{zero} of {num_examples} are zero, {saturated} below rounding"
    if max(zero, saturated) == 0 or (zero == 0 and saturated <= 0.01 * num_examples):
        return Check("input gradients", "passed", value, "")
    status: Status = "failed" if zero > 0.01 * num_examples else "warned"
    return Check("input gradients", status, value, "masked or saturated: attack the margin as well, and without gradients")


def check_determinism(largest_difference: float, scale: float) -> Check:
    """The same images must give the same logits, run after run and program after program (up to the rounding of their scale).

    >>> check_determinism(0.5, 10.0).status
    'failed'
    """
    same = largest_difference <= 1e-2 * max(scale, 1e-6)
    advice = "" if same else "turn dropout and other noise off, or attack the expectation over it"
    return Check("deterministic outputs", "passed" if same else "failed", f"largest difference {largest_difference:.2g}", advice)


def check_points(name: str, outside: int, num_points: int, region: str) -> Check:
    """No attacked image may leave its ball or its box; those that do are not counted as successes.

    >>> check_points("pgd", 0, 10, "ball").status
    'passed'
    """
    advice = "" if not outside else f"the attack does not project on its {region}: its points there were not counted"
    return Check(
        f"{name}: points in the {region}", "failed" if outside else "passed", f"{outside} of {num_points} outside", advice
    )


def check_returned(name: str, lost: int, num_points: int) -> Check:
    """An attack that met an adversarial point should return one.

    >>> check_returned("pgd", 2, 10).status
    'warned'
    """
    advice = "" if not lost else 'return the adversarial iterate (keep="adversarial")'
    return Check(f"{name}: adversarial points returned", "warned" if lost else "passed", f"{lost} of {num_points} lost", advice)


def check_monotone(name: str, epsilons: Sequence[float], accuracies: Sequence[float], num_examples: int) -> Check:
    """A larger ball holds the smaller one: robust accuracy must not rise with ε, beyond one example or 0.2 points of chance.

    More than three examples and 2 points fail.

    >>> check_monotone("pgd", [0.1, 0.2], [0.5, 0.9], 1000).status
    'failed'
    """
    order = np.argsort(epsilons)
    falling = np.minimum.accumulate(np.asarray(accuracies, np.float64)[order])
    rise = float(np.max(np.asarray(accuracies)[order] - falling))
    tolerance, serious = max(0.002, 1.5 / num_examples), max(0.02, 3.5 / num_examples)
    status: Status = "passed" if rise <= tolerance else "warned" if rise <= serious else "failed"
    advice = "" if status == "passed" else "the attack is too weak at large ε: more steps, more restarts, another step size"
    return Check(f"{name}: accuracy does not rise with ε", status, f"largest rise {100 * rise:.2f} points", advice)


def check_converged(name: str, total: float, last: float, num_left: int) -> Check:
    """On examples still robust the loss should have risen, with little of its rise (15 %) left to the last quarter of the steps.

    Args:
      name: of the attack.
      total: mean rise of the objective from the first step to the last.
      last: how much of it in the last quarter of the steps (at most ten).
      num_left: how many examples are still robust.

    Returns:
      Check.

    >>> check_converged("pgd", total=2.0, last=0.5, num_left=10).status
    'warned'
    """
    title = f"{name}: the loss has settled"
    if not num_left:
        return Check(title, "passed", "no example is left", "")
    if not total > 0:
        return Check(title, "warned", f"the loss did not rise ({total:.2g})", "masked gradients, or a step size out of range")
    share = last / total
    advice = "" if share <= 0.15 else "the loss still rises: more steps, or larger ones"
    return Check(title, "warned" if share > 0.15 else "passed", f"{100 * share:.1f} % of its rise in the last steps", advice)


def check_iterative(single: Mapping[str, float], iterative: Mapping[str, float], tolerance: float) -> Check | None:
    """Iterated attacks must be at least as strong as single steps; accuracies by name, at one ε. None where one kind is missing.

    >>> check_iterative({"fgsm": 0.2}, {"pgd": 0.6}, 0.01).status
    'warned'
    """
    if not single or not iterative:
        return None
    name, best = min(iterative.items(), key=lambda item: item[1])
    other, one = min(single.items(), key=lambda item: item[1])
    weaker = best - one
    status: Status = "warned" if weaker > tolerance else "passed"
    advice = "" if status == "passed" else "masked gradients, or an iterated attack with too few or too small steps"
    return Check(f"{name} is at least as strong as {other}", status, f"{100 * best:.1f} against {100 * one:.1f} %", advice)


def check_once(duplicates: int, num_examples: int) -> Check:
    """Every example counts once.

    >>> check_once(0, 10).status
    'passed'
    """
    advice = "" if not duplicates else "give batches that hold every example once; mark padding by weight 0"
    return Check("every example once", "failed" if duplicates else "passed", f"{duplicates} of {num_examples} repeated", advice)
