"""Attacks: one pure, jittable function per file."""

from bap_jax.attacks.deepfool import bap_deepfool, deepfool
from bap_jax.attacks.fgsm import fgsm
from bap_jax.attacks.pgd import pgd

__all__ = ["bap_deepfool", "deepfool", "fgsm", "pgd"]
