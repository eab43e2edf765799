"""The measures of a report. What each is in words stands in ``docs/measures.md``, which is drawn from the definitions that
reports print (:data:`bap_jax.report.page.DEFINITIONS`) and from :data:`DEFINITIONS`, of the measures beyond them.

All accuracies are fractions of 1. ``A[arm, s, e, p, r]`` is the accuracy of one trained network: sparsity ``s``, budget ``e``
of one attack (ε = 0 is clean), pruning process ``p`` (the course of the ramp), seed ``r``. What was not measured is NaN, and
stays missing in every number that needs it: nothing is counted as 0. ``m[s, e]``, the cell mean, is the mean over processes of
the mean over seeds, over what is there.
"""

from bap_jax.report.measures.comparisons import (
    Chosen,
    aer_difference,
    best_arm,
    budget_sensitivity,
    difference,
    difference_from_best,
    excess_sensitivity,
    own_spread,
    process_spread,
    rank_agreement,
    regret,
    regrets,
    stability_differences,
)
from bap_jax.report.measures.grid import (
    Grid,
    cell_means,
    common_cells,
    make_grid,
    uniform_arms,
)
from bap_jax.report.measures.intervals import (
    Interval,
    bootstrap,
)
from bap_jax.report.measures.scores import (
    ArmMeasures,
    aer_score,
    cell_interval,
    deviations,
    measure,
    security_area,
    stability,
    statistics_of,
)

DEFINITIONS: dict[str, str] = {  # of what stands here and in no report's table; those are in bap_jax.report.page
    "Difference": "of two arms on the same cells, paired: both see the same resampled seeds. Several differences are several "
    "looks: their intervals are each at 95 %, not all together.",
    "Best uniform budget": "the arm with a uniform budget that has the largest AER score on validation data; what is said about "
    "it is measured on test data, and the choice is made anew in every resample.",
    "Own spread": "the largest minus the smallest AER score of one arm over its seeds, each alone: how much chance moves it. "
    "A blind arm has no budget to choose, so this is what budget sensitivity is compared with.",
    "Spread over processes": "the standard deviation over pruning processes at one ε, averaged over sparsities; with sparsities "
    "as processes too, over all pairs of the two.",
    "Rank agreement": "Kendall's τ of the AER scores of the arms under two attacks: 1 if both order the arms alike, −1 if one "
    "order is the other reversed.",
    "Cut points": "the protocol of the paper that blind adversarial pruning comes from: one perturbation, made without a budget, "
    "is cut to each ε. It tells how far away that perturbation led. It is not robust accuracy, which has to stand beside it.",
    "Repaired": "of cut points: the share of images that are wrong without an attack and right at their cut point. They count as "
    "wrong.",
    "Bytes": "of a safetensors file of all parameters and statistics, made and measured: dense, and packed, each tensor without "
    "its zeros in the smallest of three forms (as it is; a bit per element and the values; gaps and the values).",
    "FLOPs": "of the convolutions and matrix products of one image's forward pass, a multiply-add being two; sparse: without the "
    "products with a zero weight, by each kernel's own share of zeros. No promise about time.",
    "BOPs": "bit operations: multiply-adds times the bits of a weight (32, or those of --weight-bits and bap quantize) times the "
    "32 of an activation.",
}


__all__ = [
    "DEFINITIONS",
    "ArmMeasures",
    "Chosen",
    "Grid",
    "Interval",
    "aer_difference",
    "aer_score",
    "best_arm",
    "bootstrap",
    "budget_sensitivity",
    "cell_interval",
    "cell_means",
    "common_cells",
    "deviations",
    "difference",
    "difference_from_best",
    "excess_sensitivity",
    "make_grid",
    "measure",
    "own_spread",
    "process_spread",
    "rank_agreement",
    "regret",
    "regrets",
    "security_area",
    "stability",
    "stability_differences",
    "statistics_of",
    "uniform_arms",
]
