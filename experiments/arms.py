"""The arms of the paper, as settings of `bap train`; `epsilons` of a sweep go to those that prescribe a uniform budget."""

from __future__ import annotations

from typing import Any

Arm = dict[str, Any]

NT_PRUNE: Arm = {"method": "nt"}
AP_PGD: Arm = {"method": "ap"}
AP_FGSM: Arm = {"method": "ap", "attack": "fgsm"}
# Ours: margins by PGD, cutoff at the batch mean, scale 1.2, a fresh attack; on the path that the published numbers took.
BAP_AT_FIRST: Arm = {"method": "bap", "path": "ray", "halving": "linear", "wrong": "zero"}
BAP: Arm = BAP_AT_FIRST  # until choice.py has its runs: then what it chooses, and everything here is run again

_SEEN: Arm = {
    "method": "bap",
    "path": "ball",
    "halving": "log",
    "wrong": "cutoff",
    "cutoff_over": "all",
    "cutoff": "mean",
    "scale": 1.2,
}
# One of these becomes BAP, by the rule of choice.py, on validation data of digits, MNIST and CIFAR-10 together. In the order in
# which they are preferred where the rule cannot tell, and each said in full: what the default is meanwhile does not matter.
CANDIDATES: tuple[Arm, ...] = (
    _SEEN,
    {**_SEEN, "scale": 1.6},
    {**_SEEN, "cutoff_over": "right"},
    {**_SEEN, **BAP_AT_FIRST},
    {**_SEEN, "cutoff": "running-mean:0.9"},
    {**_SEEN, "wrong": "floor:0.5"},
    {**_SEEN, "scale": 2.0},
)
# The first candidate without one of its parts, and two more; on digits and MNIST only, where they are affordable.
PARTS: tuple[Arm, ...] = (
    {**_SEEN, "wrong": "zero"},
    {**_SEEN, "path": "ray"},
    {**_SEEN, "halving": "linear"},
    {**_SEEN, "scale": 1.0},
    {**_SEEN, "cutoff": "running-mean:0.9", "scale": 1.6},
)

_BY_DEEPFOOL: Arm = {"search": "deepfool", "example": "rescaled", "norm": "rms"}
UNRESTRICTED: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 1.0}
BAP_BY_DEEPFOOL: Arm = {**_BY_DEEPFOOL, "scale": 0.9}  # the authors' way
BY_DEEPFOOL_CUT_ONLY: Arm = {**_BY_DEEPFOOL, "scale": 1.0}
BY_DEEPFOOL_SCALE_ONLY: Arm = {**_BY_DEEPFOOL, "cutoff": "off", "scale": 0.9}

PAPER = (NT_PRUNE, AP_PGD, AP_FGSM, BAP, UNRESTRICTED, BAP_BY_DEEPFOOL)
