"""Programs as jax traces them, with some of their operations replaced by others of the same meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend import core
from jax.extend import linear_util as lu

Choose = Callable[[Any], Any]  # an operation of a program -> the primitive to take its place, or None to leave it

# Operations that run other programs, whole: these are rewritten in place. Everything else is left as it is, above all custom_vjp,
# whose backward pass is the user's own.
_INSIDE = frozenset({"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "scan", "while", "cond"})


def with_primitives(closed: Any, choose: Choose) -> Any:
    """A closed jaxpr in which some operations are done by other primitives, of the same operands, parameters and results.

    What ``jit``, ``remat``, ``scan``, ``while``, ``cond`` and ``custom_jvp`` hold is rewritten, too, and stays inside them; the
    rule of a ``custom_jvp`` as well. Order, effects and all other operations stay as they are.

    Args:
      closed: as ``jax.make_jaxpr`` returns it.
      choose: which primitive takes the place of an operation's; None to leave it.

    Returns:
      A closed jaxpr; the same object if there was nothing to replace.

    Example:
      >>> import jax
      >>> from jax import lax
      >>> closed = jax.make_jaxpr(lambda x: lax.sin(x))(1.0)
      >>> new = with_primitives(closed, lambda operation: lax.cos_p if operation.primitive is lax.sin_p else None)
      >>> [float(value) for value in core.jaxpr_as_fun(new)(0.0)]
      [1.0]
    """
    return _Rewriting(choose).closed(closed)


class _Rewriting:
    """One rewriting: a program that is called several times stays one program."""

    def __init__(self, choose: Choose):
        self._choose = choose
        self._done: dict[int, tuple[Any, Any]] = {}

    def closed(self, closed: Any) -> Any:
        jaxpr = self.open(closed.jaxpr)
        return closed if jaxpr is closed.jaxpr else self._once(closed, lambda: closed.replace(jaxpr=jaxpr))

    def open(self, jaxpr: Any) -> Any:
        return self._once(jaxpr, lambda: self._rewritten(jaxpr))

    def _once(self, old: Any, make: Callable[[], Any]) -> Any:
        if id(old) not in self._done:
            self._done[id(old)] = old, make()  # the old one is held: its id stays its own
        return self._done[id(old)][1]

    def _rewritten(self, jaxpr: Any) -> Any:
        equations = [self._equation(equation) for equation in jaxpr.eqns]
        changed = any(new is not old for new, old in zip(equations, jaxpr.eqns, strict=True))
        return jaxpr.replace(eqns=equations) if changed else jaxpr

    def _equation(self, equation: Any) -> Any:
        primitive, name = self._choose(equation), equation.primitive.name
        if primitive is not None:
            return equation.replace(primitive=primitive)
        if name == "custom_jvp_call":
            return self._custom_jvp(equation)
        if name not in _INSIDE:
            return equation
        params = {key: self._parameter(value) for key, value in equation.params.items()}
        changed = any(value is not equation.params[key] for key, value in params.items())
        return equation.replace(params=params) if changed else equation

    def _parameter(self, value: Any) -> Any:
        if isinstance(value, core.ClosedJaxpr):
            return self.closed(value)
        if isinstance(value, core.Jaxpr):
            return self.open(value)
        if isinstance(value, tuple) and any(isinstance(part, core.ClosedJaxpr) for part in value):
            parts = tuple(self._parameter(part) for part in value)
            return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
        return value

    def _custom_jvp(self, equation: Any) -> Any:
        """The function and, where that changed, what its rule is traced to."""
        inside = self.closed(equation.params["call_jaxpr"])
        rule = equation.params.get("jvp_jaxpr_fun")
        if inside is equation.params["call_jaxpr"] or rule is None:
            return equation

        def rewritten(*in_zeros: bool) -> Any:
            jaxpr, consts, out_zeros = rule.call_wrapped(*in_zeros)
            return self.open(jaxpr), consts, out_zeros

        fast_rule = lu.wrap_init(rewritten, debug_info=rule.debug_info)
        return equation.replace(params=equation.params | {"call_jaxpr": inside, "jvp_jaxpr_fun": fast_rule})
