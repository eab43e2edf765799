"""Checks that an evaluation makes on itself: on the model before it is believed, and on the attacks after they ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bap_jax.types import Check, Status


def check_logits(probability_rows: int, num_examples: int) -> Check:
    """Outputs that are never negative and whose rows sum to one are probabilities: softmax a second time hides gradients.

    Example:
      >>> check_logits(100, 100).status
      'failed'
    """
    advice = "" if probability_rows < num_examples else "return logits: leave the softmax out of the model"
    status: Status = "failed" if num_examples and probability_rows == num_examples else "passed"
    return Check("outputs are logits", status, f"{probability_rows} of {num_examples} rows look like probabilities", advice)


def check_finite(name: str, bad: int, num_examples: int, advice: str) -> Check:
    """Anything that is NaN or infinite fails.

    Example:
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

    Example:
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

    Example:
      >>> check_determinism(0.5, 10.0).status
      'failed'
    """
    same = largest_difference <= 1e-2 * max(scale, 1e-6)
    advice = "" if same else "turn dropout and other noise off, or attack the expectation over it"
    return Check("deterministic outputs", "passed" if same else "failed", f"largest difference {largest_difference:.2g}", advice)


def check_neighbours(seen: tuple[float, int, int] | None, scale: float) -> Check:
    """An image must get the same answer whatever else is in its batch: in another order, and beside other images.

    Args:
      seen: the largest difference of a logit, how many predictions changed, and of how many; None where no batch had a second
        row.
      scale: the largest logit; a hundredth of it is rounding.

    Returns:
      Check.

    Example:
      >>> check_neighbours((0.5, 3, 20), 10.0).status, check_neighbours((1e-5, 0, 20), 10.0).status
      ('failed', 'passed')
    """
    name = "rows do not see their neighbours"
    if seen is None:
        return Check(name, "passed", "batches of one row have none", "")
    difference, changed, count = seen
    text = f"largest difference {difference:.2g}, {changed} of {count} predictions change"
    if difference <= 1e-2 * max(scale, 1e-6):
        return Check(name, "passed", text, "")
    advice = "switch the network to evaluation: stored BatchNorm statistics, nothing over the batch, no noise by a row's place"
    return Check(name, "failed", f"rows depend on their neighbours: {text}", advice)


def check_points(name: str, outside: int, num_points: int, region: str) -> Check:
    """No attacked image may leave its ball or its box; those that do are not counted as successes.

    Example:
      >>> check_points("pgd", 0, 10, "ball").status
      'passed'
    """
    advice = "" if not outside else f"the attack does not project on its {region}: its points there were not counted"
    return Check(
        f"{name}: points in the {region}", "failed" if outside else "passed", f"{outside} of {num_points} outside", advice
    )


def check_returned(name: str, lost: int, num_points: int) -> Check:
    """An attack that met an adversarial point should return one.

    Example:
      >>> check_returned("pgd", 2, 10).status
      'warned'
    """
    advice = "" if not lost else 'return the adversarial iterate (keep="adversarial")'
    return Check(f"{name}: adversarial points returned", "warned" if lost else "passed", f"{lost} of {num_points} lost", advice)


def check_monotone(name: str, epsilons: Sequence[float], accuracies: Sequence[float], num_examples: int) -> Check:
    """A larger ball holds the smaller one: robust accuracy must not rise with ε, beyond one example or 0.2 points of chance.

    More than three examples and 2 points fail.

    Example:
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

    Example:
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

    Example:
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

    Example:
      >>> check_once(0, 10).status
      'passed'
    """
    advice = "" if not duplicates else "give batches that hold every example once; mark padding by weight 0"
    return Check("every example once", "failed" if duplicates else "passed", f"{duplicates} of {num_examples} repeated", advice)


def check_found(name: str, missing: int, num_examples: int) -> Check:
    """Every example has an adversarial point somewhere in the box; where none was found, the distance is infinite (censored).

    More than one in ten fails.

    Example:
      >>> check_found("fmn-l2", 0, 100).status, check_found("fmn-l2", 30, 100).status
      ('passed', 'failed')
    """
    status: Status = "passed" if not missing else "failed" if missing > 0.1 * num_examples else "warned"
    advice = "" if not missing else "more steps, another step size, or masked gradients; these distances are infinite, not zero"
    return Check(f"{name}: a point for every example", status, f"{missing} of {num_examples} without one", advice)


def check_black_box(name: str, missed: int, num_examples: int) -> Check:
    """What falls to an attack without gradients (Square, transfer, noise) should fall to one with them, example by example.

    More than one example and 0.2 % warn, as in AutoAttack; more than 2 % fail.

    Example:
      >>> check_black_box("square-linf", 5, 1000).status, check_black_box("square-linf", 100, 1000).status
      ('warned', 'failed')
    """
    status: Status = (
        "passed" if missed <= max(1, 0.002 * num_examples) else "failed" if missed > 0.02 * num_examples else "warned"
    )
    advice = "" if status == "passed" else "masked gradients: the gradient attacks are too weak for this network"
    value = f"{missed} of {num_examples} fell to it alone"
    return Check(f"{name} finds nothing that gradients miss", status, value, advice)


def check_overfitting(training: Sequence[float], validation: Sequence[float]) -> Check:
    """Catastrophic overfitting: training answers its own single step ever better, while validation falls to several steps.

    Of all pairs of validations of a run, the earlier first, those are looked at between which the accuracy under the training
    attack rose; what counts is how much the accuracy under PGD fell between them. More than 5 points warn, more than 20 fail.

    Args:
      training: the accuracy of training on its own attack, the mean over the steps before each validation; fractions of 1.
      validation: the accuracy under PGD at those validations, the mean over radii above 0; at least two.

    Returns:
      Check: warned also where PGD leaves less than 5 % at every validation, so that nothing could have fallen.

    Example:
      >>> check_overfitting([0.6, 0.7, 0.95], [0.4, 0.45, 0.05]).status
      'failed'
      >>> check_overfitting([0.6, 0.7, 0.75], [0.4, 0.45, 0.43]).status, check_overfitting([0.6, 0.5], [0.4, 0.1]).status
      ('passed', 'passed')

    References:
      Wong, Rice and Kolter 2020, "Fast is better than free: Revisiting adversarial training".
    """
    name = "no catastrophic overfitting"
    if max(validation) < 0.05:
        text = (
            f"validation's PGD never leaves more than {100 * max(validation):.1f} %, training's step {100 * training[-1]:.1f} %"
        )
        return Check(name, "warned", text, "validate at radii that can be told apart: --validation-epsilon")
    numbers = range(len(training))
    rises = [(i, j) for i in numbers for j in numbers[i + 1 :] if training[j] > training[i]]
    falls = {pair: validation[pair[0]] - validation[pair[1]] for pair in rises}
    worst = max(falls, key=lambda pair: falls[pair], default=None)
    if worst is None or falls[worst] <= 0:
        return Check(name, "passed", "accuracy under PGD never falls while that under training's step rises", "")
    (i, j), fall = worst, falls[worst]
    text = (
        f"accuracy under training's step rises from {100 * training[i]:.1f} to {100 * training[j]:.1f} %, "
        f"under PGD it falls from {100 * validation[i]:.1f} to {100 * validation[j]:.1f} %"
    )
    status: Status = "passed" if fall <= 0.05 else "failed" if fall > 0.2 else "warned"
    advice = "" if status == "passed" else "n-fgsm with more noise, a smaller step, or pgd; an earlier checkpoint"
    return Check(name, status, text, advice)


def check_agreement(minimal: str, fixed: str, pairs: Sequence[tuple[float, float]], num_examples: int) -> Check:
    """The share of minimal distances above ε and the robust accuracy at ε measure the same thing.

    Args:
      minimal: name of the minimal-norm attack.
      fixed: name of the attack with a budget.
      pairs: (accuracy of the one, of the other) at every ε.
      num_examples: how many examples there are. A difference above 2 points (and two examples) warns: the higher of the two
        comes from the weaker attack.

    Returns:
      Check.

    Example:
      >>> check_agreement("fmn-linf", "pgd-20-linf", [(0.5, 0.51), (0.4, 0.2)], 1000).status
      'warned'
    """
    gap = max((one - other for one, other in pairs), key=abs)
    status: Status = "warned" if abs(gap) > max(0.02, 2.5 / num_examples) else "passed"
    advice = "" if status == "passed" else f"{minimal if gap > 0 else fixed} is the weaker one: more steps, another step size"
    return Check(f"{minimal} and {fixed} agree", status, f"largest difference {100 * abs(gap):.1f} points", advice)


def check_nearer(name: str, nearer: int, much_nearer: int, num_examples: int, others: Sequence[str]) -> Check:
    """No point of another attack, in whatever norm it worked, may be more than 5 % nearer than that of a minimal-norm attack.

    This holds the inequalities between norms: a point at distance r in L∞ is at most √d·r away in L2, and so on.

    Args:
      name: of the minimal-norm attack.
      nearer: examples with a point more than 5 % nearer. More than 5 % of the examples warn.
      much_nearer: examples with a point at less than two thirds of the distance. More than 10 % fail.
      num_examples: how many were right, and attacked.
      others: names of the attacks that found the points.

    Returns:
      Check.

    Example:
      >>> check_nearer("fmn-l2", 10, 0, 100, ["fmn-linf"]).status, check_nearer("fmn-l2", 30, 20, 100, ["fmn-linf"]).status
      ('warned', 'failed')
    """
    far = much_nearer > 0.1 * num_examples
    status: Status = "failed" if far else "warned" if nearer > 0.05 * num_examples else "passed"
    advice = "" if status == "passed" else "the attack stops short of the nearest points: more steps, another step size"
    against = f" ({', '.join(others)})" if nearer else ""
    return Check(f"{name}: no other point is nearer", status, f"{nearer} of {num_examples} are{against}", advice)


def check_distances(name: str, correct: ArrayLike, distances: ArrayLike) -> Check:
    """Distances mean what they should: 0 = wrong without an attack, inf = attacked and nothing found, NaN = not attacked.

    The common mistake is a 0 where an example was not attacked, which makes a network look weak, or an attack strong. Any table
    of distances can be put to it, not only this package's.

    Args:
      name: of the attack.
      correct: [N] bool: the clean image is classified correctly.
      distances: [N].

    Returns:
      Check: failed where a correctly classified example has distance 0 or a negative one, warned where some are NaN.

    Example:
      >>> check_distances("mine", [True, True, False], [0.2, 0.0, 0.0]).status
      'failed'
      >>> check_distances("mine", [True, True, False], [0.2, float("nan"), 0.0]).status
      'warned'
    """
    right, r = np.asarray(correct, bool), np.asarray(distances, np.float64)
    zero, missing = int((right & (r <= 0)).sum()), int(np.isnan(r).sum())
    status: Status = "failed" if zero else "warned" if missing else "passed"
    advice = {
        "failed": "0 means wrong without an attack: write NaN where none was made, inf where it found nothing",
        "warned": "these were not attacked: leave them out of means and curves, do not count them as 0",
        "passed": "",
    }[status]
    value = f"{zero} correct examples at distance 0, {missing} not attacked, {int(np.isinf(r).sum())} not found"
    return Check(f"{name}: distances mean what they should", status, value, advice)


def check_stronger(name: str, epsilon: float, broken: int, tried: int) -> Check:
    """The same attack with more steps or restarts should break next to nothing more: above 2 % warn, above 10 % fail.

    Example:
      >>> check_stronger("pgd-20-linf", 0.1, 20, 100).status
      'failed'
    """
    status: Status = "passed" if broken <= max(1, 0.02 * tried) else "failed" if broken > 0.1 * tried else "warned"
    advice = "" if status == "passed" else "more steps or restarts"
    value = f"{broken} of {tried} robust examples fall at ε = {epsilon:g}"
    return Check(f"{name}: more steps change nothing", status, value, advice)


def check_unbounded(name: str, epsilon: float, broken: int, tried: int) -> Check:
    """With a budget as wide as the box every example must fall; above 1 % left warn, above 10 % fail.

    Example:
      >>> check_unbounded("pgd-20-linf", 1.0, 60, 100).status
      'failed'
    """
    left = tried - broken
    status: Status = "passed" if left <= 0.01 * tried else "failed" if left > 0.1 * tried else "warned"
    advice = "" if status == "passed" else "masked gradients, or steps too few or too small"
    return Check(f"{name}: nothing withstands ε = {epsilon:g}", status, f"{left} of {tried} do", advice)


def check_noise(norm: str, epsilon: float, broken: int, tried: int) -> Check:
    """What gradient attacks left standing must not fall to noise; above 1 % warn, above 10 % fail.

    Example:
      >>> check_noise("linf", 0.1, 0, 100).status
      'passed'
    """
    status: Status = "passed" if broken <= max(1, 0.01 * tried) else "failed" if broken > 0.1 * tried else "warned"
    advice = "" if status == "passed" else "masked gradients: noise finds what gradients do not"
    value = f"{broken} of {tried} robust examples fall to noise at ε = {epsilon:g}"
    return Check(f"{norm}: noise finds nothing more", status, value, advice)


def check_shrunk(name: str, kept: float, tried: int) -> Check:
    """The points of a minimal-norm attack lie at the boundary: drawing them towards the image must gain next to nothing.

    Args:
      name: of the attack.
      kept: median of the distance after bisection over the one before. Below 0.95 warns, below 0.8 fails.
      tried: on how many examples.

    Returns:
      Check.

    Example:
      >>> check_shrunk("carlini-wagner-l2", 0.6, 50).status
      'failed'
    """
    status: Status = "passed" if kept >= 0.95 else "failed" if kept < 0.8 else "warned"
    advice = (
        "" if status == "passed" else "the attack has not settled at the boundary: smaller or more steps, or refine its points"
    )
    value = f"median {100 * (1 - kept):.1f} % nearer by bisection, {tried} examples"
    return Check(f"{name}: points lie at the boundary", status, value, advice)


def check_margins(name: str, ratios: ArrayLike) -> Check:
    """What a blind budget took for margins are distances of the boundary, and not several times as much.

    Args:
      name: of the minimal-norm attacks that found the distances.
      ratios: [N] margin over distance, of the examples that are right. A median above 2 warns.

    Returns:
      Check.

    Example:
      >>> check_margins("fmn-linf", [1.0, 1.6, 3.0]).status, check_margins("fmn-linf", [3.0, 4.0, 9.0]).status
      ('passed', 'warned')
    """
    low, median, high = np.quantile(np.asarray(ratios, np.float64), (0.1, 0.5, 0.9))
    status: Status = "passed" if median <= 2 else "warned"
    advice = "" if status == "passed" else "the budget saw no margins: path ball, halving log, more bisections or search steps"
    value = f"median {median:.2f} times those of {name} (10-90 %: {low:.2f} to {high:.2f}), {np.size(ratios)} examples"
    return Check("the budget's margins are distances", status, value, advice)


def check_cut_points(name: str, others: Sequence[str], alone: int, rise: float, repaired: int, num_examples: int) -> Check:
    """Points cut from a perturbation made once measure how far away it led, not robust accuracy: a real attack has to stand by.

    Args:
      name: of the truncated attack.
      others: the iterated attacks with gradients that were run too, at the budgets or for the nearest point.
      alone: examples that fall to a cut point, which lies within the budget, and to none of the others of its norm. More than
        one example and 2 % warn: then the others are too weak.
      rise: by how much accuracy rises with ε. It may: this is no sign of masked gradients here.
      repaired: examples that are wrong without the attack and right at a cut point, at most over the budgets. They are not
        counted as robust.
      num_examples: how many examples there are.

    Returns:
      Check: warned where there is no other attack, or a weaker one.

    Example:
      >>> check_cut_points("deepfool-truncated-rms", [], 0, 0.0, 0, 100).status
      'warned'
      >>> check_cut_points("deepfool-truncated-rms", ["pgd-20-rms"], 9, 0.0, 0, 100).status
      'warned'
    """
    weaker = alone > max(1, 0.02 * num_examples)
    advice = "the attacks beside it are weaker: more steps, restarts, or others such as apgd-ce" if weaker else ""
    if not others:
        advice = "accuracy on cut points is not robust accuracy: run another attack beside it, such as pgd"
    beside = f"beside {', '.join(others)}" if others else "no real attack beside it"
    value = (
        f"{beside}; {alone} of {num_examples} fall to it alone, {repaired} put right by it, largest rise {100 * rise:.2f} points"
    )
    return Check(f"{name}: cut points, read beside a real attack", "warned" if advice else "passed", value, advice)


def check_sparsity(asked: float, measured: float) -> Check:
    """The network is as sparse as it is said to be, to within half a point: what counts is the zeros of its masks.

    Example:
      >>> check_sparsity(0.9, 0.85).status
      'failed'
    """
    status: Status = "passed" if abs(asked - measured) <= 0.005 else "failed"
    advice = "" if status == "passed" else "report the measured sparsity, and find out which layers were not pruned"
    return Check("sparsity as asked for", status, f"{measured:.4f} measured, {asked:.4f} asked for", advice)
