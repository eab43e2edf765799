"""The arms of the paper, as settings of `bap train`; `epsilons` of a sweep go to those that prescribe a uniform budget."""

from __future__ import annotations

from typing import Any

Arm = dict[str, Any]

NT_PRUNE: Arm = {"budget": "none"}
AP_PGD: Arm = {"budget": "uniform"}
AP_FGSM: Arm = {"budget": "uniform", "attack": "fgsm"}
BAP: Arm = {}  # ours: margins by PGD, cutoff at the batch mean, scale 1.2, a fresh attack

_BY_DEEPFOOL: Arm = {"search": "deepfool", "example": "rescaled", "norm": "rms"}
UNRESTRICTED: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 1.0}
BAP_BY_DEEPFOOL: Arm = {**_BY_DEEPFOOL, "scale": 0.9}  # the authors' way
BY_DEEPFOOL_CUT_ONLY: Arm = {**_BY_DEEPFOOL, "scale": 1.0}
BY_DEEPFOOL_SCALE_ONLY: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 0.9}

PAPER = (NT_PRUNE, AP_PGD, AP_FGSM, BAP, UNRESTRICTED, BAP_BY_DEEPFOOL)
