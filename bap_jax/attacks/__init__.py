"""Attacks: one pure, jittable function per file."""

from bap_jax.attacks.apgd import apgd
from bap_jax.attacks.apgd_targeted import apgd_targeted
from bap_jax.attacks.bisection import bisection
from bap_jax.attacks.brendel_bethge import brendel_bethge
from bap_jax.attacks.carlini_wagner import carlini_wagner
from bap_jax.attacks.ddn import ddn
from bap_jax.attacks.deepfool import bap_deepfool, deepfool
from bap_jax.attacks.fab import fab, fab_targeted
from bap_jax.attacks.fgsm import fgsm
from bap_jax.attacks.fmn import fmn
from bap_jax.attacks.ho_fmn import ho_fmn
from bap_jax.attacks.n_fgsm import n_fgsm
from bap_jax.attacks.noise import noise
from bap_jax.attacks.pgd import pgd
from bap_jax.attacks.pgd0 import pgd0
from bap_jax.attacks.rs_fgsm import rs_fgsm
from bap_jax.attacks.sigma_zero import sigma_zero
from bap_jax.attacks.sparse_rs import sparse_rs
from bap_jax.attacks.square import square
from bap_jax.attacks.targets import choose_targets

__all__ = [
    "apgd",
    "apgd_targeted",
    "bap_deepfool",
    "bisection",
    "brendel_bethge",
    "carlini_wagner",
    "choose_targets",
    "ddn",
    "deepfool",
    "fab",
    "fab_targeted",
    "fgsm",
    "fmn",
    "ho_fmn",
    "n_fgsm",
    "noise",
    "pgd",
    "pgd0",
    "rs_fgsm",
    "sigma_zero",
    "sparse_rs",
    "square",
]
