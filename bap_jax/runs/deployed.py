"""A trained network as a function of images, with what it is made of and how well it holds."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bap_jax.checkpoint import Network
from bap_jax.data import Source
from bap_jax.errors import SettingError
from bap_jax.evaluation import EvaluationResult, evaluate
from bap_jax.runs.plan import AttackPlan
from bap_jax.types import Apply, Array, Bounds, Model, ModelState, Params, PyTree


@functools.lru_cache(maxsize=64)
def predictor(apply: Apply) -> Callable[[tuple[Params, ModelState], Array], Array]:
    """``((params, model_state), images) -> logits``; the same object for the same model, so that its networks share compiles."""

    def predict(weights, images):
        params, model_state = weights
        return apply(params, model_state, images, train=False)[0].logits

    return predict


@functools.lru_cache(maxsize=64)
def _compiled(predict: Callable) -> Callable:
    return jax.jit(predict)


class Deployed:
    """A trained network: ``net(images)`` are its logits.

    Args:
      model: the functions.
      network: weights, masks and statistics, in the model's structure.
      image_shape: of one image.
      about: what else is known: the run, the step, ….
      dataset: ``split -> Source``, what :meth:`evaluate` attacks where it is given no data; None if nothing is known.

    Attributes:
      model: the functions.
      network: the three below.
      params: its weights; those that are pruned are zero.
      masks: bool, of the structure of ``params``, True = kept.
      model_state: BatchNorm statistics, or ``{}``.
      about: what is known about it.
      predict: ``((params, model_state), images) -> logits``, pure and not jitted: what
        :func:`bap_jax.evaluation.evaluate_batches` takes, with ``weights``.

    Example:
      >>> import bap_jax as bap, jax.numpy as jnp, numpy as np
      >>> model = bap.models.from_function(lambda key, x: {"w": jnp.ones((4, 2))}, lambda params, x: x @ params["w"])
      >>> net = Deployed(model, Network({"w": jnp.ones((4, 2))}, {"w": jnp.ones((4, 2), bool)}, {}), (4,))
      >>> net(np.ones((3, 4))).shape
      (3, 2)
    """

    def __init__(
        self,
        model: Model,
        network: Network,
        image_shape: tuple[int, ...],
        about: Mapping[str, Any] | None = None,
        dataset: Callable[[str], Source] | None = None,
    ):
        self.model, self.network, self.image_shape, self.about, self._dataset = (
            model,
            network,
            tuple(image_shape),
            dict(about or {}),
            dataset,
        )
        self.predict = predictor(model.apply)  # type: ignore[arg-type]  # a protocol does not say that functions hash

    @property
    def params(self) -> Params:
        return self.network.params

    @property
    def masks(self) -> PyTree:
        return self.network.masks

    @property
    def model_state(self) -> ModelState:
        return self.network.model_state

    @property
    def weights(self) -> tuple[Params, ModelState]:
        """What ``predict`` takes."""
        return self.network.params, self.network.model_state

    def __call__(self, images: Any) -> Array:
        """Logits.

        Args:
          images: [B, ...] float32 as the network was trained on, or uint8, which is read as ``value / 255``.

        Returns:
          [B, K].

        Raises:
          SettingError: images of another shape.
        """
        images = jnp.asarray(images)
        if images.shape[1:] != self.image_shape or not images.ndim:
            raise SettingError("images", list(images.shape), f"a batch [B, {', '.join(map(str, self.image_shape))}]")
        images = images.astype(jnp.float32) / (255 if images.dtype == jnp.uint8 else 1)
        return _compiled(self.predict)(self.weights, images)

    def evaluate(self, images: Any = None, labels: Any = None, *, split: str = "test", **given: Any) -> EvaluationResult:
        """Attacks the network, as :func:`bap_jax.evaluate` does, and writes nothing.

        Args:
          images: [N, ...] images or a data set; by default data that the network was trained on.
          labels: [N], of arrays.
          split: where no images are given: ``test``, ``validation`` or ``train``.
          **given: what :func:`bap_jax.evaluate` takes: ``attacks="autoattack"``, ``epsilon=8 / 255``, ``norm``, ``limit``,
            ``batch_size``, ``seed``, ``progress``, settings of the attacks. ``attack=`` and ``epsilon="8/255"``, as they were
            before, work for one release more.

        Returns:
          See :func:`bap_jax.evaluate`.

        Raises:
          SettingError: what makes no sense, or no data.
        """
        if images is None:
            if self._dataset is None:
                raise SettingError("images", None, "examples to attack: nothing is known of the data of this network")
            images = self._dataset(split)
        if "attack" in given or (isinstance(given.get("epsilon"), str) and "attacks" not in given):
            given = _as_before(given)
        return evaluate(self, images, labels, **given)


def _as_before(given: dict[str, Any]) -> dict[str, Any]:
    """The words of :class:`bap_jax.runs.plan.AttackPlan`, which were taken here before, as those of today."""
    text = 'net.evaluate(attacks="pgd", epsilon=0.1, num_steps=20) is how it is written now'
    warnings.warn(f"{text}; attack=, steps=, queries= and radii as text go with the next release", FutureWarning, stacklevel=3)
    plan = AttackPlan(**{name: given.pop(name) for name in AttackPlan.__dataclass_fields__ if name in given and name != "limit"})
    box = given.pop("bounds", Bounds())
    more = {"attacks": plan.check().threats(box), "epsilon": plan.epsilons(), "seed": plan.seed, "controls": plan.controls}
    return given | more
