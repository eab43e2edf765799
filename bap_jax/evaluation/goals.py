"""Attacks that want more, or something else, than any wrong answer: a class of their own, or the label out of the k likeliest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks.targets import TargetRule, choose_targets
from bap_jax.errors import SettingError
from bap_jax.evaluation import compiled
from bap_jax.evaluation.bound import Once
from bap_jax.evaluation.compiled import Predict
from bap_jax.evaluation.given import batches_of, key_of, on_host, radii_of
from bap_jax.evaluation.jobs import check_sizes, tolerance
from bap_jax.evaluation.threats import ATTACKS, attack_settings, named_threat
from bap_jax.mathematics.objectives import successful, top_k_margin_loss
from bap_jax.types import Array, Batch, Bounds, Norm, Params


class GoalResult(NamedTuple):
    """How often an attack got what it wanted."""

    epsilons: tuple[float, ...]
    success: tuple[float, ...]  # at each ε, the share of all images for which it did
    unattacked: float  # the share for which the network does so of itself
    num_examples: int
    reached: np.ndarray  # [E, N] bool, per ε and image
    positions: np.ndarray  # [N] in the data set
    labels: np.ndarray  # [N]
    wanted: np.ndarray  # [N] the class wanted, or the label that is not
    correct: np.ndarray  # [N] bool: the clean image is classified correctly


def evaluate_goal(
    predict: Predict,
    params: Params,
    batches: Iterable[Batch] | Batch,
    attack: str,
    epsilons: float | Iterable[float],
    key: Array | int,
    *,
    targets: TargetRule | None = None,
    top_k: int = 1,
    norm: Norm = "linf",
    bounds: Bounds = Bounds(),
    progress: Callable[[int], None] = lambda done: None,
    **settings: Any,
) -> GoalResult:
    """Attack every image at every ε towards a class of the attack's choice, or until its label is not among the k likeliest.

    All images count, those that are classified wrongly too (``correct`` tells them). A point counts where the network, asked
    again, does what the attack wanted, and the point lies in ball and box.

    Args:
      predict: (params, images) to logits [B, K].
      params: of the network.
      batches: with images inside ``bounds``.
      attack: its name, as :func:`bap_jax.evaluation.named_threat` takes it.
      epsilons: radii.
      key: a key, or a seed.
      targets: a targeted attack: how the wanted class is chosen, see :func:`bap_jax.attacks.choose_targets`.
      top_k: an untargeted one for k > 1: the label has to leave the k largest logits. The objective is then
        :func:`bap_jax.mathematics.top_k_margin_loss` unless ``settings`` say otherwise.
      norm: one of those that the attack works in.
      bounds: the box.
      progress: told after every batch how many images are done.
      **settings: of the attack, e.g. ``num_steps``.

    Returns:
      GoalResult.

    Raises:
      SettingError: an attack that has no such goal, both goals at once, or input that is none.

    Example:
      >>> import numpy as np
      >>> predict = lambda params, images: images @ params
      >>> images, weights = np.array([[0.75, 0.5, 0.5]], np.float32), np.eye(3, dtype=np.float32)
      >>> batch = Batch(images, np.array([0]), np.array([0]), np.ones(1))
      >>> evaluate_goal(predict, weights, batch, "pgd", [0.1, 0.2], 0, targets="next").success
      (0.0, 1.0)
      >>> evaluate_goal(predict, weights, batch, "pgd", [0.1, 0.2], 0, top_k=2).success
      (0.0, 1.0)

    References:
      Carlini and Wagner 2017, section II (targets: average, best and worst case); top-k: Zhang and Wu 2020, "Learning ordered
      top-k adversarial attacks via adversarial distillation".
    """
    if targets is not None and top_k != 1:
        raise SettingError("top_k", top_k, "1 with targets: the wanted class is answered, or it is not")
    goal = {"targeted": True} if targets is not None else {"top_k": top_k} if top_k != 1 else {}
    known = attack_settings(attack) if attack in ATTACKS else ()
    for name in goal:
        if known and name not in known:
            able = [other for other in ATTACKS if name in attack_settings(other)]
            raise SettingError("attack", attack, f"an attack that can be {name}: {', '.join(able)}")
    if "top_k" in goal and "objective" in known:
        settings = {"objective": _leaving(top_k)} | settings
    threat = named_threat(attack, norm=norm, bounds=bounds, **goal, **settings)
    radii, key = radii_of(epsilons), key_of(key)
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("index", "labels", "wanted", "correct", "unattacked", "reached")
    }
    for batch in batches_of(batches):
        batch, real = on_host(batch, [bounds])
        check_sizes([threat], {threat.name: radii}, batch.images.shape[1:])
        clean = jax.device_get(compiled.look(predict, params, batch, ()))
        aimed = batch
        if targets is not None:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 1), jnp.asarray(batch.index))
            aimed = batch._replace(labels=np.asarray(choose_targets(clean["logits"], batch.labels, targets, keys)))
        reached = _judge(clean["logits"], aimed.labels, targets, top_k)
        rows = []
        for epsilon in radii:
            result = compiled.attack(predict, Once(threat.attack), params, key, aimed, jnp.float32(epsilon), jnp.int32(0))
            judged = jax.device_get(compiled.judge(predict, params, aimed, result.images, bounds))
            inside = judged[norm] <= epsilon + tolerance(threat, epsilon, batch.images[0].size)
            rows.append((_judge(judged["logits"], aimed.labels, targets, top_k) & inside & judged["boxed"])[real])
        found = {"index": batch.index, "labels": batch.labels, "wanted": aimed.labels, "unattacked": reached}
        found["correct"] = clean["prediction"] == batch.labels
        for name, column in found.items():
            columns[name].append(np.asarray(column)[real])
        columns["reached"].append(np.stack(rows))
        progress(sum(map(len, columns["index"])))
    if not columns["index"] or not sum(map(len, columns["index"])):
        raise SettingError("batches", "no images", "at least one image")
    index, labels, wanted, correct, unattacked = (
        np.concatenate(columns[name]) for name in ("index", "labels", "wanted", "correct", "unattacked")
    )
    per_image = np.concatenate(columns["reached"], axis=1)
    shares = tuple(float(share) for share in per_image.mean(axis=1))
    return GoalResult(radii, shares, float(unattacked.mean()), len(index), per_image, index, labels, wanted, correct)


def _judge(logits: np.ndarray, wanted: np.ndarray, targets: TargetRule | None, top_k: int) -> np.ndarray:
    return np.asarray(successful(jnp.asarray(logits), jnp.asarray(wanted), targeted=targets is not None, top_k=top_k))


@functools.cache  # one function per k, so that evaluating again compiles nothing anew
def _leaving(top_k: int) -> Callable[[Array, Array], Array]:
    return functools.partial(top_k_margin_loss, top_k=top_k)
