"""Evaluation: robust accuracy under threats, security curves, and the checks that make them believable."""

from bap_jax.evaluation.accuracy import clean_accuracy, robust_accuracy, wilson_interval
from bap_jax.evaluation.autoattack import autoattack
from bap_jax.evaluation.cascade import Cascade, Stage, cascade
from bap_jax.evaluation.checks import check_distances, check_margins, check_overfitting, check_sparsity
from bap_jax.evaluation.evaluate import evaluate
from bap_jax.evaluation.evaluate_batches import evaluate_batches
from bap_jax.evaluation.goals import GoalResult, evaluate_goal
from bap_jax.evaluation.jobs import Surrogate
from bap_jax.evaluation.optimality import best_distances, global_optimality, local_optimality
from bap_jax.evaluation.passes import Passes, count_passes, passes_of_threat, steps_of_budget, steps_within
from bap_jax.evaluation.result import EvaluationResult, Progress
from bap_jax.evaluation.security_curve import SecurityCurve, area_under_curve, security_curve
from bap_jax.evaluation.survey import SurveyResult, survey_protocol, survey_split
from bap_jax.evaluation.threats import ATTACKS, attack_settings, named_threat
from bap_jax.evaluation.tuned_fmn import FmnTrial, TunedFmn, tune_fmn
from bap_jax.renamed import renamed
from bap_jax.types import Check

__all__ = [
    "ATTACKS",
    "Cascade",
    "Check",
    "EvaluationResult",
    "FmnTrial",
    "GoalResult",
    "Passes",
    "Progress",
    "SecurityCurve",
    "Stage",
    "Surrogate",
    "SurveyResult",
    "TunedFmn",
    "area_under_curve",
    "attack_settings",
    "autoattack",
    "best_distances",
    "cascade",
    "check_distances",
    "check_margins",
    "check_overfitting",
    "check_sparsity",
    "clean_accuracy",
    "count_passes",
    "evaluate",
    "evaluate_batches",
    "evaluate_goal",
    "global_optimality",
    "local_optimality",
    "named_threat",
    "passes_of_threat",
    "robust_accuracy",
    "security_curve",
    "steps_of_budget",
    "steps_within",
    "survey_protocol",
    "survey_split",
    "tune_fmn",
    "wilson_interval",
]

__getattr__ = renamed(__name__, Source="Surrogate", settings_of="attack_settings")
