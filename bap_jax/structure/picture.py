"""The families of coupled channels as a text to read."""

from __future__ import annotations

from collections.abc import Iterator

from bap_jax.mathematics.channels import Family, Groups, Role, Slice

_WORDS: tuple[tuple[Role, str], ...] = (("makes", "made by"), ("scales", "scaled by"), ("follows", "with"), ("reads", "read by"))


def describe_groups(groups: Groups) -> str:
    """A paragraph for every family: what makes its channels, what goes with them, and what reads them.

    Args:
      groups: of the network, see :func:`bap_jax.structure.groups_of`.

    Returns:
      Several lines. Where a group has several entries of an axis, it says how many.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bap_jax.structure import groups_of
      >>> from bap_jax.types import Model, Outputs
      >>> def apply(params, model_state, images, *, train, key=None):
      ...     x = jax.nn.relu(images @ params["a"] + params["bias"][None])
      ...     return Outputs(jnp.concatenate([x, x], 1) @ params["b"], {}), model_state
      >>> params = {"a": jnp.ones((2, 5)), "b": jnp.ones((10, 3)), "bias": jnp.ones(5)}
      >>> print(describe_groups(groups_of(Model(None, apply), params, {}, (2,))))
      a: 5
        made by    a
        with       bias
        read by    b (2 entries each)
    """
    return "\n".join(line for family in groups.families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"{family.name}: {family.size}"
    for role, words in _WORDS:
        found = [_text(piece) for piece in family.slices if piece.role == role]
        if found:
            yield f"  {words:9}  {', '.join(found)}"


def _text(piece: Slice) -> str:
    entries = piece.indices.shape[1]
    return piece.path if entries == 1 else f"{piece.path} ({entries} entries each)"
