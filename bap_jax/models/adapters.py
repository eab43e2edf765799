"""Linen modules, NNX modules and plain functions in the one calling convention, :class:`bap_jax.types.Model`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from bap_jax.errors import SettingError
from bap_jax.mathematics.fast import fast_by_default
from bap_jax.types import Array, Model, ModelState, Outputs, Params


def as_model(model: Any) -> Model:
    """Whatever a user has for a network as a :class:`bap_jax.types.Model`.

    Args:
      model: a Model, which stays as it is; a Linen module; or a function (or class) that makes an NNX module of its
        ``nnx.Rngs``.

    Raises:
      SettingError: none of these.

    Example:
      >>> import flax.linen as nn
      >>> type(as_model(nn.Dense(3))).__name__
      'Model'
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module):
        return from_linen(model)
    if isinstance(model, nnx.Module) or not callable(model):
        expected = "a Linen module, a bap_jax Model, or a function that makes an NNX module: lambda rngs: Net(rngs=rngs)"
        raise SettingError("model", type(model).__name__, expected)
    return from_nnx((lambda rngs: model(rngs=rngs)) if isinstance(model, type) else model)


def fast_model(model: Model) -> Model:
    """A network of the user's own as it is trained and attacked: with fast convolutions where these are the default.

    See :func:`bap_jax.fast`, and for the default :func:`bap_jax.mathematics.convolution.conv_kind`.

    Example:
      >>> import jax
      >>> model = from_function(lambda key, images: {}, lambda params, images: images)
      >>> fast_model(model).apply({}, {}, jax.numpy.ones((1, 2)), train=False)[0].logits
      Array([[1., 1.]], dtype=float32)
    """
    return model._replace(apply=fast_by_default(model.apply))


def from_linen(module: nn.Module) -> Model:
    """A Flax Linen module as two pure functions.

    The module is called with ``images``, and with ``train=`` if it takes that. It returns logits, (logits, taps) or
    :class:`bap_jax.types.Outputs`. ``params`` is the collection of that name; all other collections (``batch_stats``, ...)
    together are the model state, ``{}`` if there are none; they change only when ``train`` is true. ``key`` serves as the
    ``dropout`` stream.

    Args:
      module: a Linen module, not bound.

    Returns:
      Model: ``init(key, images)`` and ``apply(params, model_state, images, *, train, key=None)``, both jittable.

    Raises:
      SettingError: not a Linen module; on ``apply``, a result that is none of the three.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = from_linen(nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)]))
      >>> images = jnp.ones((4, 2))
      >>> params, model_state = model.init(jax.random.key(0), images)
      >>> outputs, model_state = model.apply(params, model_state, images, train=True)
      >>> outputs.logits.shape, model_state
      ((4, 3), {})
    """
    if not isinstance(module, nn.Module):
        raise SettingError("module", module, "a flax.linen.Module")
    takes_train = "train" in inspect.signature(type(module).__call__).parameters

    def mode(train: bool) -> dict[str, Any]:
        return {"train": train} if takes_train else {}

    def init(key: Array, images: Array) -> tuple[Params, ModelState]:
        params_key, dropout_key = jax.random.split(key)
        variables = dict(nn.meta.unbox(module.init({"params": params_key, "dropout": dropout_key}, images, **mode(False))))
        variables.pop("intermediates", None)
        return variables.pop("params", {}), variables

    def apply(
        params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]:
        variables = {"params": params, **model_state}
        rngs = {} if key is None else {"dropout": key}
        if not train or not model_state:
            return _outputs(module.apply(variables, images, rngs=rngs, **mode(train))), model_state
        result, changed = module.apply(variables, images, rngs=rngs, mutable=list(model_state), **mode(train))
        return _outputs(result), {**model_state, **changed}

    return Model(init, apply)


def from_nnx(make_module: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A Flax NNX module as two pure functions over nested dictionaries of arrays.

    The module is called with ``images`` after ``module.train()`` or ``module.eval()``. It returns logits, (logits, taps) or
    :class:`bap_jax.types.Outputs`. ``nnx.Param`` variables are the parameters; all others (``BatchStat``, ...) are the model
    state, ``{}`` if there are none; they change only when ``train`` is true. The states of the module's random streams are
    neither: they are set from ``key`` at every call.

    Args:
      make_module: makes the module from its random streams; called when a function is traced, not here.

    Returns:
      Model: ``init(key, images)`` and ``apply(params, model_state, images, *, train, key=None)``, both jittable.

    Raises:
      SettingError: on ``apply``, ``train`` without a key for a module that holds random streams, or a result that is none of the
        three.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
      >>> images = jnp.ones((4, 2))
      >>> params, model_state = model.init(jax.random.key(0), images)
      >>> sorted(params), model_state
      (['bias', 'kernel'], {})
      >>> model.apply(params, model_state, images, train=False)[0].logits.shape
      (4, 3)
    """

    def init(key: Array, images: Array) -> tuple[Params, ModelState]:
        _, params, _, rest = _split(make_module(_streams(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def apply(
        params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]:
        # The structure alone: nothing is computed, and every call has variables of its own to fill and to change.
        abstract = nnx.eval_shape(lambda: make_module(_streams(jax.random.key(0))))
        graph, params_state, rng_state, rest_state = _split(abstract)
        if train and key is None and jax.tree.leaves(rng_state):
            raise SettingError("key", None, "a key: the module draws random numbers while training")
        nnx.replace_by_pure_dict(params_state, params)
        nnx.replace_by_pure_dict(rest_state, model_state)
        rng_state = _seed(rng_state, jax.random.key(0) if key is None else key)
        module = nnx.merge(graph, params_state, rng_state, rest_state)
        module.train() if train else module.eval()
        outputs = _outputs(module(images))
        if not train:
            return outputs, model_state
        return outputs, nnx.to_pure_dict(_split(module)[3])

    return Model(init, apply)


def _split(module: nnx.Module) -> tuple[Any, Any, Any, Any]:
    """(graph, parameters, states of random streams, all the rest)."""
    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return parts


def _streams(key: Array) -> nnx.Rngs:
    params_key, dropout_key = jax.random.split(key)
    return nnx.Rngs(params=params_key, dropout=dropout_key)


def _seed(rng_state: Any, key: Array) -> Any:
    """Every stream's key from ``key`` and its place in the module, every count zero."""
    leaves, treedef = jax.tree.flatten(rng_state)
    fresh = [
        jax.random.fold_in(key, place) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros(leaf.shape, leaf.dtype)
        for place, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, fresh)


def from_function(init: Callable[[Array, Array], Params], apply: Callable[..., Any]) -> Model:
    """Two plain functions as a model without state.

    Args:
      init: (key, images) to parameters, any pytree of arrays.
      apply: (params, images) to logits, (logits, taps) or :class:`bap_jax.types.Outputs`; it is also given ``train=`` and
        ``key=`` if it takes arguments of those names.

    Returns:
      Model: its model state is ``{}``. (A function with state is a ``Model(init, apply)`` as it stands.)

    Raises:
      SettingError: on ``apply``, a result that is none of the three.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = from_function(lambda key, images: {"w": jnp.ones((2, 3))}, lambda params, images: images @ params["w"])
      >>> params, model_state = model.init(jax.random.key(0), jnp.ones((4, 2)))
      >>> model.apply(params, model_state, jnp.ones((4, 2)), train=False)[0].logits.shape
      (4, 3)
    """
    takes = {"train", "key"} & set(inspect.signature(apply).parameters)

    def make(key: Array, images: Array) -> tuple[Params, ModelState]:
        return init(key, images), {}

    def call(
        params: Params, model_state: ModelState, images: Array, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, ModelState]:
        options = {name: value for name, value in (("train", train), ("key", key)) if name in takes}
        return _outputs(apply(params, images, **options)), model_state

    return Model(make, call)


def two_class(fn: Any) -> Any:
    """A network of one logit s, for two classes, as one of the logits [0, s]: class 1 where s > 0, with probability sigmoid(s).

    Attacks, losses and evaluation take logits of at least two classes; the softmax of [0, s] is [1 − sigmoid(s), sigmoid(s)].

    Args:
      fn: a function whose result is the logit [B] or [B, 1], alone or first in a tuple (:class:`bap_jax.types.Outputs`, or with
        taps or a state behind it), whatever its arguments are; or a :class:`bap_jax.types.Model` of such outputs.

    Returns:
      The same with logits [B, 2].

    Raises:
      SettingError: when called, a result of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> two_class(lambda images: images.sum(axis=1))(jnp.array([[1.0, 2.0], [-1.0, -2.0]]))
      Array([[ 0.,  3.],
             [ 0., -3.]], dtype=float32)
    """
    if isinstance(fn, Model):
        return fn._replace(apply=two_class(fn.apply))

    @functools.wraps(fn)
    def with_two(*args: Any, **options: Any) -> Any:
        return _two_logits(fn(*args, **options))

    return with_two


def _two_logits(result: Any) -> Any:
    if isinstance(result, Outputs):
        return result._replace(logits=_two_logits(result.logits))
    if isinstance(result, tuple) and result:
        return (_two_logits(result[0]), *result[1:])
    shape = getattr(result, "shape", None)
    if shape is None or len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise SettingError("fn", type(result).__name__ if shape is None else list(shape), "one logit per image, [B] or [B, 1]")
    logit = result.reshape(-1)
    return jnp.stack([jnp.zeros_like(logit), logit], axis=-1)


def _outputs(result: Any) -> Outputs:
    if isinstance(result, Outputs):
        return result
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return Outputs(result[0], result[1])
    if hasattr(result, "shape") and hasattr(result, "dtype"):
        return Outputs(result, {})
    raise SettingError("the model's result", type(result).__name__, "logits, (logits, taps) or Outputs")
