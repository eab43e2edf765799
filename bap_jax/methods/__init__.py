"""Published methods by name, each a file of data: published settings, phases, place in the taxonomy, source.

``bap train --method NAME`` trains by one; every slot of it can be replaced. The table names modules as text, so that the names,
and the help of the command line, need no jax. A new method is one file and one row.

Example:
  >>> method_of("hydra").reference.split(",")[0]
  'Sehwag et al. 2020'
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from bap_jax.errors import SettingError

if TYPE_CHECKING:
    from bap_jax.types import Method

METHODS: Mapping[str, str] = MappingProxyType(  # name -> module:object
    {
        "nt": "bap_jax.methods.nt:METHOD",
        "ap": "bap_jax.methods.ap:METHOD",
        "bap": "bap_jax.methods.bap:METHOD",
        "bap-authors": "bap_jax.methods.bap:AUTHORS",
        "mma": "bap_jax.methods.mma:METHOD",
        "iaat": "bap_jax.methods.iaat:METHOD",
        "cat": "bap_jax.methods.cat:METHOD",
        "fat": "bap_jax.methods.fat:METHOD",
        "madry": "bap_jax.methods.madry:METHOD",
        "trades": "bap_jax.methods.trades:METHOD",
        "mart": "bap_jax.methods.mart:METHOD",
        "pwoa": "bap_jax.methods.pwoa:METHOD",
        "pwoa-cifar10": "bap_jax.methods.pwoa:CIFAR10",
        "pwoa-cifar100": "bap_jax.methods.pwoa:CIFAR100",
        "hydra": "bap_jax.methods.hydra:METHOD",
        "s2ap": "bap_jax.methods.s2ap:METHOD",
        "radmm": "bap_jax.methods.radmm:METHOD",
        "harp": "bap_jax.methods.harp:METHOD",
        "flying_bird": "bap_jax.methods.flying_bird:METHOD",
        "flying_bird_plus": "bap_jax.methods.flying_bird:PLUS",
        "twin_rep": "bap_jax.methods.twin_rep:METHOD",
        "rst": "bap_jax.methods.rst:METHOD",
        "robust_bird": "bap_jax.methods.robust_bird:METHOD",
        "li20": "bap_jax.methods.li20:METHOD",
        "mad": "bap_jax.methods.mad:METHOD",
        "sensitive_filters": "bap_jax.methods.sensitive_filters:METHOD",
        "adversarial_finetuning": "bap_jax.methods.adversarial_finetuning:METHOD",
        "adversarial_finetuning_int8": "bap_jax.methods.adversarial_finetuning:INT8",
        "merkle": "bap_jax.methods.merkle:METHOD",
    }
)


def method_of(name: str) -> Method:
    """The method of a name.

    Args:
      name: one of :data:`METHODS`.

    Raises:
      SettingError: there is none of that name.
    """
    if name not in METHODS:
        raise SettingError("--method", name, "one of " + ", ".join(METHODS))
    module, _, found = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), found)
