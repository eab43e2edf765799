"""Images to look at: clean, adversarial, and what was added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bap_jax.errors import SettingError
from bap_jax.report.figures.canvas import drawing, empty_figure, title

MAX_IMAGES = 12


class Samples(NamedTuple):
    """Images to look at, one column each."""

    title: str
    clean: np.ndarray  # [N, H, W] or [N, H, W, C], inside the bounds
    adversarial: np.ndarray  # same shape
    labels: Sequence[str] = ()  # [N] what the clean image shows
    predictions: Sequence[str] = ()  # [N] what the network says to the adversarial one
    bounds: tuple[float, float] = (0.0, 1.0)
    clean_predictions: Sequence[str] = ()  # [N] what the network says to the clean one
    distances: Sequence[float] = ()  # [N] the size of the perturbation, in the attack's norm


def samples_figure(samples: Samples) -> Figure:
    """Clean images, adversarial images, and their difference, amplified so that the largest one fills the scale.

    Above a clean image stands its label, above an adversarial one what the network says, with ✓ where that is the label and ✗
    where it is not; below the difference its size. Grey or mid-colour means unchanged; the factor is written beside it. At most
    twelve images are drawn, the first ones.

    Raises:
      SettingError: the two arrays differ in shape, or are not ``[N, H, W]`` or ``[N, H, W, C]`` with one or three channels and
        at least one image.
    """
    clean, adversarial = np.asarray(samples.clean, float), np.asarray(samples.adversarial, float)
    fits = clean.shape == adversarial.shape and clean.ndim in (3, 4) and (clean.ndim == 3 or clean.shape[-1] in (1, 3))
    if not fits or not len(clean):
        shapes = "two equal shapes [N, H, W] or [N, H, W, C] with N ≥ 1 and C = 1 or 3"
        raise SettingError("samples", (clean.shape, adversarial.shape), shapes)
    with drawing():
        return _draw(samples, clean[:MAX_IMAGES], adversarial[:MAX_IMAGES])


def _draw(samples: Samples, clean: np.ndarray, adversarial: np.ndarray) -> Figure:
    low, high = samples.bounds
    factor = amplification(clean, adversarial, samples.bounds)
    figure = empty_figure(max(4.0, 0.95 * len(clean) + 1.7), 4.1)
    panels = figure.subplots(3, len(clean), squeeze=False)
    for i in range(len(clean)):
        unit = [(image - low) / (high - low) for image in (clean[i], adversarial[i])]
        for axes, picture in zip(panels[:2, i], unit, strict=True):
            _picture(axes, picture, "gray")
        _picture(panels[2, i], 0.5 + factor * (unit[1] - unit[0]) / 2, "PuOr")
        panels[0, i].set_title(_said(samples.labels, samples.clean_predictions, i, "→"), fontsize=9, pad=2)
        panels[1, i].set_title(_judged(samples, i), fontsize=9, pad=2)
        if i < len(samples.distances):
            panels[2, i].set_xlabel(f"{samples.distances[i]:.3g}", fontsize=8.5, labelpad=2)
    for axes, text in zip(panels[:, 0], ("clean", "adversarial", f"difference\n× {factor:.3g}"), strict=True):
        axes.set_ylabel(text, fontsize=9.5, rotation=0, ha="right", va="center")
    title(figure, samples.title)
    return figure


def amplification(clean: np.ndarray, adversarial: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    """By how much differences are multiplied so that the largest one spans half of the scale from black to white.

    Example:
      >>> amplification(np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.25))
      4.0
    """
    return (bounds[1] - bounds[0]) / (float(np.abs(adversarial - clean).max()) or 1.0)


def _said(labels: Sequence[str], predictions: Sequence[str], i: int, arrow: str) -> str:
    label = str(labels[i]) if i < len(labels) else ""
    wrong = i < len(predictions) and str(predictions[i]) != label
    return f"{label} {arrow} {predictions[i]}".strip() if wrong else label


def _judged(samples: Samples, i: int) -> str:
    if i >= len(samples.predictions):
        return ""
    mark = ("✓ " if str(samples.predictions[i]) == str(samples.labels[i]) else "✗ ") if i < len(samples.labels) else ""
    return f"{mark}{samples.predictions[i]}"


def _picture(axes: Axes, unit: np.ndarray, colours: str) -> None:
    unit = np.clip(unit, 0, 1)
    unit = unit[..., 0] if unit.ndim == 3 and unit.shape[-1] == 1 else unit
    axes.imshow(unit, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
