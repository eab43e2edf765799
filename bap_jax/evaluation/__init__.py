"""Evaluation: robust accuracy under threats, security curves, and the checks that make them believable."""

from bap_jax.evaluation.accuracy import clean_accuracy, robust_accuracy, wilson_interval
from bap_jax.evaluation.checks import Check
from bap_jax.evaluation.evaluate import EvaluationResult, Progress, evaluate
from bap_jax.evaluation.security_curve import SecurityCurve, area_under_curve, security_curve
from bap_jax.evaluation.threats import deepfool_threat, fgsm_threat, pgd_threat

__all__ = [
    "Check",
    "EvaluationResult",
    "Progress",
    "SecurityCurve",
    "area_under_curve",
    "clean_accuracy",
    "deepfool_threat",
    "evaluate",
    "fgsm_threat",
    "pgd_threat",
    "robust_accuracy",
    "security_curve",
    "wilson_interval",
]
