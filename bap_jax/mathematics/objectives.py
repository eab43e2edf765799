"""What attacks maximise: losses of a label, one number per example.

One sign for all: the larger the value, the less the network believes in the label. An untargeted attack maximises it at the true
label, a targeted one minimises it at the target.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bap_jax.errors import SettingError
from bap_jax.inputs import require_labels, require_logits
from bap_jax.types import Array

_INSTEAD = "; with fewer take cross_entropy or margin_loss (the attack apgd-ce)"


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy of integer labels, log Σ exp z − z_y.

    Args:
      logits: [B, K] unnormalised.
      labels: [B] integers in 0 … K−1; checked where they are concrete.

    Returns:
      [B] nats, ≥ 0.

    Raises:
      SettingError: logits or labels of a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(4)
      Array([0.6931], dtype=float32)
    """
    own = _pick(logits, labels)
    return jax.nn.logsumexp(logits, axis=-1) - own


def soft_cross_entropy(logits: Array, targets: Array) -> Array:
    """Cross-entropy of a distribution over the classes, −Σ_k t_k·log softmax(z)_k.

    Args:
      logits: [B, K].
      targets: [B, K] non-negative, rows summing to one (one-hot or softened).

    Returns:
      [B] nats.

    Raises:
      SettingError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> soft_cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[0.9, 0.1]])).round(4)
      Array([0.6931], dtype=float32)
    """
    require_logits(logits, logits.shape[0], "logits")
    if logits.shape != targets.shape:
        raise SettingError("targets", targets.shape, f"one distribution per row of logits, shape {logits.shape}")
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def margin(logits: Array, labels: Array) -> Array:
    """The logit margin z_y − max_{j≠y} z_j: positive where the label wins, negative where it loses.

    This is a margin, not a loss: as an attack's objective take :func:`margin_loss`.

    Args:
      logits: [B, K], K ≥ 2.
      labels: [B] integers.

    Returns:
      [B] in logit units.

    Raises:
      SettingError: fewer than two classes, or a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> margin(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
      Array([1.], dtype=float32)
    """
    _check_classes(logits, 2, "margin")
    others = jnp.where(_one_hot(logits, labels), -jnp.inf, logits)
    return _pick(logits, labels) - jnp.max(others, axis=-1)


def margin_loss(logits: Array, labels: Array) -> Array:
    """The negative margin max_{j≠y} z_j − z_y, an objective like the others: positive where the example is misclassified.

    Args:
      logits: [B, K], K ≥ 2.
      labels: [B] integers.

    Returns:
      [B] in logit units.

    Raises:
      SettingError: as :func:`margin`.

    Example:
      >>> import jax.numpy as jnp
      >>> margin_loss(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([1]))
      Array([-1.], dtype=float32)

    References:
      Carlini and Wagner 2017 (f₆, without its clamp).
    """
    return -margin(logits, labels)


def probability_margin_loss(logits: Array, labels: Array) -> Array:
    """The negative margin of probabilities, max_{j≠y} p_j − p_y with p = softmax(z): the objective of PMA.

    Args:
      logits: [B, K], K ≥ 2.
      labels: [B] integers.

    Returns:
      [B] in [−1, 1], positive where the example is misclassified.

    Raises:
      SettingError: as :func:`margin`.

    Example:
      >>> import jax.numpy as jnp
      >>> probability_margin_loss(jnp.array([[0.0, jnp.log(3.0)]]), jnp.array([1])).round(4)
      Array([-0.5], dtype=float32)

    References:
      Xie et al. 2024, "Improving the Robustness Evaluation of Adversarially Trained Models by Probability Margin Attack" (arXiv
      2411.15210).
    """
    return -margin(jax.nn.softmax(logits, axis=-1), labels)


def top_k_margin_loss(logits: Array, labels: Array, top_k: int) -> Array:
    """What pushes a label out of the k largest: the k-th largest of the other logits − z_y; :func:`margin_loss` for k = 1.

    Bind ``top_k`` (``functools.partial``) before handing it over as an objective of (logits, labels).

    Args:
      logits: [B, K], K > k.
      labels: [B] integers.
      top_k: k ≥ 1.

    Returns:
      [B] in logit units, positive where the label is not among the k largest.

    Raises:
      SettingError: too few classes, or a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> [top_k_margin_loss(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([2]), k) for k in (1, 2)]
      [Array([1.], dtype=float32), Array([-1.], dtype=float32)]
    """
    _check_classes(logits, top_k + 1, f"the {top_k} largest logits")
    others = jnp.where(_one_hot(logits, labels), -jnp.inf, logits)
    return jax.lax.top_k(others, top_k)[0][:, -1] - _pick(logits, labels)


def soft_margin_loss(logits: Array, labels: Array) -> Array:
    """The soft logit margin log Σ_{j≠y} exp z_j − z_y: :func:`margin_loss` with a smooth maximum, never below it.

    Args:
      logits: [B, K], K ≥ 2.
      labels: [B] integers.

    Returns:
      [B] in logit units; below 0 only where the label wins.

    Raises:
      SettingError: as :func:`margin`.

    Example:
      >>> import jax.numpy as jnp
      >>> soft_margin_loss(jnp.array([[1.0, 3.0, 1.0]]), jnp.array([1])).round(4)
      Array([-1.3069], dtype=float32)

    References:
      Ding et al. 2020, "MMA Training: Direct Input Space Margin Maximization through Adversarial Training".
    """
    _check_classes(logits, 2, "soft_margin_loss")
    others = jnp.where(_one_hot(logits, labels), -jnp.inf, logits)
    return jax.nn.logsumexp(others, axis=-1) - _pick(logits, labels)


def kl_divergence(logits: Array, others: Array) -> Array:
    """The Kullback-Leibler divergence Σ_k p_k·(log p_k − log q_k) of two predictions, p = softmax(z) and q = softmax(others).

    Args:
      logits: [B, K], of p: the clean images in TRADES and MART.
      others: [B, K], of q: the attacked ones.

    Returns:
      [B] nats, ≥ 0 up to rounding.

    Raises:
      SettingError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(kl_divergence(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, jnp.log(3.0)]]))[0]), 4)
      0.1438

    References:
      Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy".
    """
    require_logits(logits, logits.shape[0], "logits")
    if logits.shape != others.shape:
        raise SettingError("others", others.shape, f"logits of shape {logits.shape}")
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def dlr(logits: Array, labels: Array) -> Array:
    """Difference of logits ratio, −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3 + 1e-12), π sorting the logits downwards.

    Neither a shift nor a positive factor of the logits changes it.

    Args:
      logits: [B, K], K ≥ 3.
      labels: [B] integers.

    Returns:
      [B]: positive where misclassified, at least −1 where not.

    Raises:
      SettingError: fewer than three classes, or a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> dlr(jnp.array([[4.0, 2.0, 0.0]]), jnp.array([0]))
      Array([-0.5], dtype=float32)

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness", eq. 6.
    """
    _check_classes(logits, 3, "dlr")
    top, _ = jax.lax.top_k(logits, 3)
    return -margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Array, labels: Array, targets: Array) -> Array:
    """Targeted difference of logits ratio, −(z_y − z_t) / (z_π1 − ½(z_π3 + z_π4) + 1e-12).

    An attack that wants class t maximises it; bind ``targets`` before handing it over as an objective of (logits, labels).

    Args:
      logits: [B, K], K ≥ 4.
      labels: [B] integers, the true classes.
      targets: [B] integers, the wanted classes.

    Returns:
      [B], positive where the target beats the label.

    Raises:
      SettingError: fewer than four classes, or a wrong shape or dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> dlr_targeted(jnp.array([[5.0, 3.0, 2.0, 0.0]]), jnp.array([0]), jnp.array([1]))
      Array([-0.5], dtype=float32)

    References:
      Croce and Hein 2020, "Reliable evaluation of adversarial robustness", eq. 7.
    """
    _check_classes(logits, 4, "dlr_targeted")
    top, _ = jax.lax.top_k(logits, 4)
    return (_pick(logits, targets) - _pick(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def misclassified(logits: Array, labels: Array) -> Array:
    """Whether the largest logit is not the label's (the first of equal ones counts), told from finite numbers.

    A row that decides nothing is not misclassified: NaN among its logits, +∞, or −∞ for the label. −∞ for other classes takes no
    part, as where a network masks classes out.

    Args:
      logits: [B, K].
      labels: [B] integers.

    Returns:
      [B] bool.

    Raises:
      SettingError: a wrong shape or dtype, or fewer than two classes.

    Example:
      >>> import jax.numpy as jnp
      >>> misclassified(jnp.array([[1.0, 3.0], [1.0, 3.0], [1.0, jnp.nan]]), jnp.array([0, 1, 0]))
      Array([ True, False, False], dtype=bool)
    """
    return (jnp.argmax(logits, axis=-1) != labels) & _decided(logits, labels)


def successful(logits: Array, labels: Array, *, targeted: bool = False, top_k: int = 1) -> Array:
    """Whether an attack has what it wants: :func:`misclassified`, or the labels answered if ``targeted``.

    With ``top_k`` above 1 an example counts as misclassified where its label is not among the k largest logits; of equal logits
    those of the first classes count as the larger ones.

    A row that decides nothing (:func:`misclassified`) is a success in neither case.

    Args:
      logits: [B, K].
      labels: [B] integers: the true classes, or the wanted ones if ``targeted``.
      targeted: which of the two.
      top_k: k ≥ 1, below the number of classes; untargeted only.

    Returns:
      [B] bool.

    Raises:
      SettingError: as :func:`misclassified`; too few classes for ``top_k``.

    Example:
      >>> import jax.numpy as jnp
      >>> logits, labels = jnp.array([[1.0, 3.0], [1.0, 3.0], [jnp.nan, 3.0]]), jnp.array([0, 1, 1])
      >>> successful(logits, labels), successful(logits, labels, targeted=True)
      (Array([ True, False, False], dtype=bool), Array([False,  True, False], dtype=bool))
    """
    if top_k == 1:
        return ((jnp.argmax(logits, axis=-1) != labels) != targeted) & _decided(logits, labels)
    _check_classes(logits, top_k + 1, f"the {top_k} largest logits")
    own = _pick(logits, labels)[:, None]
    first = jnp.arange(logits.shape[-1])[None, :] < labels[:, None]
    return (jnp.sum((logits > own) | ((logits == own) & first), axis=-1) >= top_k) & _decided(logits, labels)


def rankable(scores: Array) -> Array:
    """Scores among which a search looks for the largest: −∞ where one is NaN or infinite, so that the search leaves there.

    Example:
      >>> import jax.numpy as jnp
      >>> rankable(jnp.array([0.5, jnp.nan, jnp.inf]))
      Array([ 0.5, -inf, -inf], dtype=float32)
    """
    return jnp.where(jnp.isfinite(scores), scores, -jnp.inf)


def _decided(logits: Array, labels: Array) -> Array:
    """Whether the largest logit (a NaN, where there is one) and the label's are finite, and so their difference."""
    return jnp.isfinite(jnp.max(logits, axis=-1) - _pick(logits, labels))


def _one_hot(logits: Array, labels: Array) -> Array:
    if getattr(logits, "ndim", 2) != 2:
        raise SettingError("logits", logits.shape, "shape [B, K]")
    require_logits(logits, getattr(logits, "shape", labels.shape)[0], "logits")
    require_labels(labels, logits.shape[0], logits.shape[1])
    return jnp.arange(logits.shape[1])[None, :] == labels[:, None]


def _pick(logits: Array, labels: Array) -> Array:
    # A masked sum, not a gather: its derivative needs no scatter, which accelerators dislike.
    return jnp.sum(jnp.where(_one_hot(logits, labels), logits, 0), axis=-1)


def _check_classes(logits: Array, least: int, name: str) -> None:
    if logits.ndim != 2 or logits.shape[1] < least:
        instead = _INSTEAD if name.startswith("dlr") else ""
        raise SettingError("logits", logits.shape, f"shape [B, K] with at least {least} classes for {name}{instead}")
