"""Attacks bound to their settings, called alike whatever their keywords: what a threat and what a stage of a cascade hold.

They compare equal when their settings do, so that evaluating again with newly made threats compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bap_jax.attacks import apgd_targeted
from bap_jax.mathematics.objectives import dlr
from bap_jax.types import Array, AttackResult, LogitsFn, comparable


@dataclass(frozen=True, eq=False)
class BoundAttack:
    """An attack's function with its settings, equal to another one if its settings are, arrays among them by value.

    Called with the radius, as a threat's attack, or with the number of the attempt as well, as that of a cascade's stage.
    """

    function: Callable[..., AttackResult]
    settings: tuple[tuple[str, Any], ...]
    radius: str | None = "epsilon"  # the keyword that takes the radius; None: a minimal-norm attack
    number: str | None = None  # the keyword that takes the number of the attempt; None: every attempt is the same
    first: int = 0  # the number of the first attempt

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundAttack) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return comparable((self.function, self.settings, self.radius, self.number, self.first))

    @property
    def least_classes(self) -> int:
        """With fewer classes the attack is not defined."""
        return 4 if self.function is apgd_targeted else 3 if dict(self.settings).get("objective") is dlr else 2

    def __call__(
        self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array, attempt: Array | int = 0
    ) -> AttackResult:
        given: dict[str, Any] = {} if self.radius is None else {self.radius: epsilon}
        given |= {} if self.number is None else {self.number: attempt + self.first}
        return self.function(logits_fn, keys, images, labels, **dict(self.settings), **given)


@dataclass(frozen=True)
class Once:
    """Any threat's attack as that of a stage of one attempt."""

    attack: Callable[[LogitsFn, Array, Array, Array, Array], AttackResult]

    def __call__(
        self, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array, epsilon: Array, attempt: Array
    ) -> AttackResult:
        return self.attack(logits_fn, keys, images, labels, epsilon)


def hashable(attack: Callable) -> Callable:
    """Settings that hold arrays cannot be a cache's key; such an attack is compiled anew at every call."""
    try:
        hash(attack)
    except TypeError:
        return lambda *arguments: attack(*arguments)
    return attack
