"""The pictures of a report, drawn with matplotlib's objects alone (no pyplot, no state that outlives a call).

Every function returns a :class:`matplotlib.figure.Figure` on white; :func:`png_bytes` and :func:`svg_bytes` render it. A style
for every arm comes from :func:`bap_jax.report.style.arm_styles`.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bap_jax.errors import SettingError
from bap_jax.report.measures import ArmMeasures, Grid, cell_interval, cell_means
from bap_jax.report.rows import format_epsilon, format_sparsity
from bap_jax.report.style import Style, arm_styles

Styles = Mapping[str, Style]
INK, GREY, FAINT = "#1a1a1a", "#5c5c5c", "#d9d9d9"
MAX_HISTORIES = 6
SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "font.family": ["DejaVu Sans"],
    "axes.titlesize": 11,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar in an arm's name is a dollar
    "svg.hashsalt": "bap_jax",  # the same figure gives the same bytes
    "svg.fonttype": "path",  # needs no font where it is read
}


_LOCK = threading.RLock()


@contextmanager
def _settings() -> Iterator[None]:
    """Our settings for the time being; one thread at a time, since matplotlib's are everyone's."""
    with _LOCK, matplotlib.rc_context(SETTINGS):
        yield


class Samples(NamedTuple):
    """Images to look at, one column each."""

    title: str
    clean: np.ndarray  # [N, H, W] or [N, H, W, C], inside the bounds
    adversarial: np.ndarray  # same shape
    labels: Sequence[str] = ()  # [N] what the clean image shows
    predictions: Sequence[str] = ()  # [N] what the network says to the adversarial one
    bounds: tuple[float, float] = (0.0, 1.0)


def png_bytes(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _settings():
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, text as outlines; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _settings():
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes, grid: str = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis=grid, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _handle(style: Style, marker: str = "") -> Line2D:
    line: Any = style.line  # dash patterns are wider than matplotlib's annotation
    return Line2D([], [], color=style.colour, marker=marker, linestyle=line, linewidth=style.width)


def _legend(figure: Figure, arms: Sequence[str], styles: Styles, columns: int) -> None:
    handles = [_handle(styles[arm], styles[arm].marker) for arm in arms]
    figure.legend(
        handles, list(arms), loc="outside lower center", ncols=max(1, min(columns, len(arms))), frameon=False, handlelength=3.2
    )


def aer_figure(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Figure:
    """Heat maps of accuracy over sparsity × ε, one per arm, one colour scale; the numbers stand in the cells.

    Args:
      grid: one scene.
      measures: of its arms; their AER score is the panels' title.

    Returns:
      The figure. A cell that was not measured is hatched and says "–".
    """
    with _settings():
        return _aer_figure(grid, measures)


def _aer_figure(grid: Grid, measures: Mapping[str, ArmMeasures]) -> Figure:
    means = cell_means(grid.accuracy) * 100
    num_rows, num_columns = means.shape[1:]
    across = min(len(grid.arms), 2 if num_columns * num_rows > 4 and num_columns <= 12 else 1 if num_columns > 12 else 3)
    down = math.ceil(len(grid.arms) / across)
    width = max(3.4, 0.52 * num_columns + 1.2)
    height = 0.34 * num_rows + 0.62
    figure = _figure(across * width + 0.9, down * height + 1.0)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    mesh = None
    for i, axes in enumerate(panels.flat):
        if i >= len(grid.arms):
            axes.set_visible(False)
            continue
        mesh = _heat_map(axes, means[i], grid)
        score = measures[grid.arms[i]].aer_score.value
        axes.set_title(
            f"{grid.arms[i]}   AER score {'–' if math.isnan(score) else f'{100 * score:.1f}'}", loc="left", fontweight="bold"
        )
        if i + across >= len(grid.arms):
            axes.tick_params(labelbottom=True)
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=panels, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label("accuracy, %")
    figure.supxlabel("ε of the attack (0 = clean)", fontsize=10)
    figure.supylabel("sparsity", fontsize=10)
    figure.suptitle(f"Accuracy, %: {grid.scene.label}", fontsize=12, x=0.01, ha="left")
    return figure


def _heat_map(axes: Axes, means: np.ndarray, grid: Grid) -> Any:
    axes.set_facecolor("#ececec")
    mesh = axes.pcolormesh(np.ma.masked_invalid(means), cmap="cividis", vmin=0, vmax=100, edgecolors="white", linewidth=1.0)
    axes.set_xticks(np.arange(len(grid.epsilons)) + 0.5, [format_epsilon(e) for e in grid.epsilons])
    axes.set_yticks(np.arange(len(grid.sparsities)) + 0.5, [format_sparsity(s) for s in grid.sparsities])
    axes.tick_params(length=0, labelsize=9)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(means):
        missing = math.isnan(value)
        colour = GREY if missing else "white" if value < 47 else "black"  # cividis is as far from white as from black there
        axes.text(column + 0.5, row + 0.5, "–" if missing else f"{value:.0f}", ha="center", va="center", fontsize=9, color=colour)
    return mesh


def security_figure(grid: Grid, styles: Styles | None = None) -> Figure:
    """Security curves: accuracy over ε, one panel per sparsity, one line per arm.

    The band is the 95 % bootstrap interval over seeds and processes; there is none where it is not defined.
    """
    with _settings():
        return _security_figure(grid, styles or arm_styles(grid.arms))


def _security_figure(grid: Grid, styles: Styles) -> Figure:
    across = min(3, len(grid.sparsities))
    down = math.ceil(len(grid.sparsities) / across)
    figure = _figure(max(5.2, 3.5 * across), 3.0 * down + 1.0)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for i, axes in enumerate(panels.flat):
        if i >= len(grid.sparsities):
            axes.set_visible(False)
            continue
        _security_panel(axes, grid, i, styles)
        if i + across >= len(grid.sparsities):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("ε of the attack (0 = clean)")
    figure.supylabel("accuracy, %", fontsize=10)
    figure.suptitle(f"Security curves, {grid.scene.label}", fontsize=12, x=0.01, ha="left")
    _legend(figure, grid.arms, styles, 3 * across - 1)
    return figure


def _security_panel(axes: Axes, grid: Grid, sparsity: int, styles: Styles) -> None:
    epsilons = np.asarray(grid.epsilons)
    finite = np.isfinite(epsilons)
    for arm, accuracy in zip(grid.arms, grid.accuracy, strict=True):
        cells = [cell_interval(cell, over="seeds and processes", num_resamples=400) for cell in accuracy[sparsity]]
        value, low, high = (np.array(part)[finite] * 100 for part in zip(*cells, strict=True))
        there, style = ~np.isnan(value), styles[arm]
        axes.fill_between(epsilons[finite], low, high, color=style.colour, alpha=0.16, linewidth=0)
        axes.plot(
            epsilons[finite][there],
            value[there],
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            linewidth=style.width,
            markersize=5,
            zorder=3 if style.width > 2 else 2,
        )
    axes.set_title(f"{format_sparsity(grid.sparsities[sparsity])} sparse", loc="left")
    axes.set_ylim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _tidy(axes)


def scores_figure(grid: Grid, measures: Mapping[str, ArmMeasures], styles: Styles | None = None) -> Figure:
    """Bars: the AER score beside the stability (standard deviation over processes) of every arm, with intervals over seeds."""
    with _settings():
        styles = styles or arm_styles(grid.arms)
        figure = _figure(9.2, 0.42 * len(grid.arms) + 1.7)
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, grid, [measures[arm].aer_score for arm in grid.arms], styles)
        left.set_title("AER score, %  (higher is better)", loc="left")
        _bars(right, grid, [measures[arm].stability for arm in grid.arms], styles)
        right.set_title("Spread over processes, points  (lower is steadier)", loc="left")
        figure.suptitle(f"Score and stability, {grid.scene.label}", fontsize=12, x=0.01, ha="left")
        return figure


def _bars(axes: Axes, grid: Grid, intervals: Sequence[Any], styles: Styles) -> None:
    places = [float(place) for place in range(len(grid.arms))]
    top = max((100 * v for interval in intervals for v in (interval.value, interval.high) if not math.isnan(v)), default=0.0)
    top = top or 1.0  # all zero or all missing
    for place, arm, interval in zip(places, grid.arms, intervals, strict=True):
        value = 100 * interval.value
        if math.isnan(value):
            axes.text(0.01 * top, place, "– not defined", va="center", fontsize=9, color=GREY)
            continue
        axes.barh(place, value, color=styles[arm].colour, alpha=0.85, height=0.62)
        end = value
        if interval.known:
            axes.plot(
                [100 * interval.low, 100 * interval.high], [place, place], color=INK, linewidth=1.4, marker="|", markersize=7
            )
            end = max(end, 100 * interval.high)
        axes.text(end + 0.02 * top, place, f"{value:.1f}", va="center", fontsize=9.5)
    axes.set_yticks(places, list(grid.arms))
    axes.set_xlim(0, 1.16 * top)
    axes.set_ylim(len(grid.arms) - 0.4, -0.6)
    _tidy(axes, "x")
    axes.tick_params(axis="y", length=0)


def pareto_figure(grid: Grid, sizes: Mapping[tuple[str, float], float] | None = None, styles: Styles | None = None) -> Figure:
    """Accuracy, robustness and size: clean accuracy against mean robust accuracy, and the latter against size.

    A point is one arm at one sparsity; arms are joined along sparsity. A filled point is not dominated: no other one is at
    least as good in clean accuracy, in robust accuracy and in size, and better in one of them.

    Args:
      grid: one scene with ε = 0 and at least one ε > 0.
      sizes: (arm, sparsity) → non-zero parameters; the share of weights kept if None.
      styles: of the arms.
    """
    with _settings():
        return _pareto_figure(grid, sizes, styles or arm_styles(grid.arms))


def _pareto_figure(grid: Grid, sizes: Mapping[tuple[str, float], float] | None, styles: Styles) -> Figure:
    clean, robust = pareto_points(grid)
    size = np.array([[sizes.get((a, s), math.nan) if sizes else 100 * (1 - s) for s in grid.sparsities] for a in grid.arms])
    best = not_dominated(np.stack([clean.ravel(), robust.ravel(), -size.ravel()], -1)).reshape(clean.shape)
    figure = _figure(9.6, 4.7)
    left, right = figure.subplots(1, 2, sharey=True)
    for i, arm in enumerate(grid.arms):
        _pareto_line(left, clean[i], robust[i], best[i], styles[arm])
        _pareto_line(right, size[i], robust[i], best[i], styles[arm])
        for place, (x, y, s) in enumerate(zip(clean[i], robust[i], grid.sparsities, strict=True)):
            if 0 < place < len(grid.sparsities) - 1 and len(grid.sparsities) > 4:
                continue  # many labels would cover each other: the ends suffice
            if not math.isnan(x + y) and (styles[arm].width > 2 or len(grid.arms) == 1):
                left.annotate(
                    format_sparsity(s), (x, y), xytext=(0, -15), textcoords="offset points", ha="center", fontsize=9, color=INK
                )
    left.set_xlabel("clean accuracy, %")
    left.set_ylabel("mean accuracy over ε > 0, %")
    right.set_xlabel("non-zero parameters" if sizes else "weights kept, %")
    positive = sorted(set(size[size > 0].tolist()))
    if positive and positive[-1] > 3 * positive[0]:
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_formatter(EngFormatter(sep="") if sizes else FuncFormatter(lambda x, _: f"{x:g}"))
    right.invert_xaxis()
    left.set_title("Accuracy and robustness", loc="left")
    right.set_title("Robustness and size (smaller to the right)", loc="left")
    for axes in (left, right):
        axes.margins(0.09)
        _tidy(axes)
    figure.suptitle(f"Trade-off, {grid.scene.label}: filled = not dominated", fontsize=12, x=0.01, ha="left")
    _legend(figure, grid.arms, styles, 6)
    return figure


def _pareto_line(axes: Axes, x: np.ndarray, y: np.ndarray, best: np.ndarray, style: Style) -> None:
    axes.plot(x, y, color=style.colour, linestyle=style.line, linewidth=style.width * 0.7, alpha=0.8)
    for chosen, face in ((best, style.colour), (~best, "white")):
        axes.plot(
            x[chosen],
            y[chosen],
            linestyle="none",
            marker=style.marker,
            markersize=8,
            markerfacecolor=face,
            markeredgecolor=style.colour,
        )


def pareto_points(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Clean accuracy and mean robust accuracy in per cent, each ``[arms, sparsities]``; NaN where a budget is missing."""
    means = cell_means(grid.accuracy) * 100
    is_clean = np.array([epsilon == 0 for epsilon in grid.epsilons])
    shape = means.shape[:2]
    clean = means[..., is_clean].mean(-1) if is_clean.any() else np.full(shape, math.nan)
    robust = means[..., ~is_clean].mean(-1) if (~is_clean).any() else np.full(shape, math.nan)
    return clean, robust


def not_dominated(points: np.ndarray) -> np.ndarray:
    """Which points ``[n, criteria]`` (more is better) no other one dominates; a point with a NaN is never among them.

    Example:
      >>> not_dominated(np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 3.0]])).tolist()
      [False, True, True]
    """
    at_least = np.all(points[None] >= points[:, None], axis=-1)
    better = np.any(points[None] > points[:, None], axis=-1)
    return ~np.any(at_least & better, axis=1) & ~np.isnan(points).any(-1)


def training_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]], styles: Styles | None = None) -> Figure:
    """Training over steps: the budgets ε_i and the cutoff of each run that has them; then sparsity and loss of all runs.

    Args:
      histories: run name → rows with ``step`` and any of ``epsilon_mean``, ``epsilon_q05`` … ``epsilon_q95`` (quantiles),
      ``cutoff``,
        ``sparsity``, ``loss`` and ``*_loss``. At most six runs are drawn, the first ones.
      styles: of the runs.
    """
    with _settings():
        names = list(histories)[:MAX_HISTORIES]
        return _training_figure({name: histories[name] for name in names}, styles or arm_styles(names))


def _training_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]], styles: Styles) -> Figure:
    with_budget = [
        name for name, rows in histories.items() if any(key.startswith("epsilon") or key == "cutoff" for r in rows for key in r)
    ]
    others = [key for key in ("sparsity", "loss") if any(len(_series(rows, key)[0]) for rows in histories.values())]
    panels = len(with_budget) + len(others)
    if not panels:
        raise SettingError("histories", sorted(histories), "rows with step and epsilon_mean, cutoff, sparsity or loss")
    across = min(panels, 3)
    figure = _figure(max(4.6, 3.8 * across), 3.1 * math.ceil(panels / across) + 0.9)
    axes = list(figure.subplots(math.ceil(panels / across), across, squeeze=False).flat)
    for name, panel in zip(with_budget, axes, strict=False):
        _budget_panel(panel, name, histories[name], styles[name].colour)
    for key, panel in zip(others, axes[len(with_budget) :], strict=False):
        for name, rows in histories.items():
            steps, values = _series(rows, key)
            scaled = values * 100 if key == "sparsity" else values
            panel.plot(steps, scaled, color=styles[name].colour, linestyle=styles[name].line, linewidth=styles[name].width)
        panel.set_title("sparsity, %" if key == "sparsity" else "training loss", loc="left")
    for panel in axes[panels:]:
        panel.set_visible(False)
    for panel in axes[:panels]:
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_xlabel("step")
        _tidy(panel)
    if others:
        handles = [_handle(styles[name]) for name in histories]
        figure.legend(
            handles, list(histories), loc="outside lower center", ncols=min(6, len(handles)), frameon=False, handlelength=3.2
        )
    return figure


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return np.array([step for step, _ in pairs], float), np.array([value for _, value in pairs], float)


def _budget_panel(axes: Axes, name: str, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    keys = sorted({key for row in rows for key in row if re.fullmatch(r"epsilon_q\d+", key)}, key=_quantile)
    for depth, (low, high) in enumerate(zip(keys, reversed(keys), strict=True)):
        if _quantile(low) >= _quantile(high):
            break
        label = f"ε {_quantile(low):g}–{_quantile(high):g} %"
        steps, bottom = _series(rows, low)
        _, top = _series(rows, high)
        if len(bottom) == len(top):
            axes.fill_between(steps, bottom, top, color=colour, alpha=0.18 + 0.14 * depth, linewidth=0, label=label)
    for key, label, line in (("epsilon_q50", "ε median", "--"), ("epsilon_mean", "ε mean", "-"), ("epsilon", "ε", "-")):
        steps, values = _series(rows, key)
        if len(steps):
            axes.plot(steps, values, color=colour, linestyle=line, linewidth=1.6, label=label)
    steps, values = _series(rows, "cutoff")
    if len(steps):
        axes.plot(steps, values, color=INK, linestyle=":", linewidth=1.8, label="cutoff")
    axes.set_title(f"budgets ε: {name}", loc="left")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8.5, frameon=False)


def _quantile(key: str) -> float:
    digits = key.removeprefix("epsilon_q")
    return float(digits) / 10 ** max(0, len(digits) - 2)  # q05, q50, q975 = 97.5 %


def layers_figure(layers: Mapping[str, Mapping[str, float]], styles: Styles | None = None) -> Figure:
    """The sparsity of every layer, one mark per run.

    Args:
      layers: run name → layer → sparsity, layers in the network's order.
      styles: of the runs.
    """
    if not layers or not any(layers.values()):
        raise SettingError("layers", dict(layers), "at least one run with at least one layer")
    with _settings():
        styles = styles or arm_styles(list(layers))
        names = list(dict.fromkeys(layer for run in layers.values() for layer in run))
        figure = _figure(7.6, 0.3 * len(names) + 1.7)
        axes = figure.subplots()
        spread = np.linspace(-0.22, 0.22, len(layers)) if len(layers) > 1 else [0.0]
        for run, offset in zip(layers, spread, strict=True):
            values = [100 * layers[run].get(name, math.nan) for name in names]
            places = np.arange(len(names)) + offset
            style = styles[run]
            axes.plot(values, places, linestyle="none", color=style.colour, marker=style.marker, markersize=6)
        axes.set_yticks(np.arange(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("sparsity, %")
        axes.set_title("Sparsity per layer", loc="left")
        _tidy(axes)
        handles = [_handle(styles[run]._replace(line="none"), styles[run].marker) for run in layers]
        figure.legend(handles, list(layers), loc="outside lower center", ncols=min(5, len(layers)), frameon=False)
        return figure


def samples_figure(samples: Samples) -> Figure:
    """Clean images, adversarial images, and their difference (grey or mid-colour = unchanged; the scale is written beside it).

    Raises:
      SettingError: the two arrays differ in shape, or are not ``[N, H, W]`` or ``[N, H, W, C]`` with one or three channels.
    """
    clean, adversarial = np.asarray(samples.clean, float), np.asarray(samples.adversarial, float)
    if clean.shape != adversarial.shape or clean.ndim not in (3, 4) or (clean.ndim == 4 and clean.shape[-1] not in (1, 3)):
        raise SettingError(
            "samples", (clean.shape, adversarial.shape), "two equal shapes [N, H, W] or [N, H, W, C] with C = 1 or 3"
        )
    with _settings():
        return _samples_figure(samples, clean, adversarial)


def _samples_figure(samples: Samples, clean: np.ndarray, adversarial: np.ndarray) -> Figure:
    count = min(len(clean), 12)
    largest = float(np.abs(adversarial - clean)[:count].max()) or 1.0
    figure = _figure(max(4.0, 0.95 * count + 1.4), 3.9)
    panels = figure.subplots(3, count, squeeze=False)
    for i in range(count):
        pictures = (clean[i], adversarial[i], 0.5 + (adversarial[i] - clean[i]) / (2 * largest))
        for axes, picture, is_difference in zip(panels[:, i], pictures, (False, False, True), strict=True):
            _picture(axes, picture, samples.bounds if not is_difference else (0.0, 1.0), is_difference)
        for axes, texts in zip(panels[:2, i], (samples.labels, samples.predictions), strict=True):
            if i < len(texts):
                axes.set_title(str(texts[i]), fontsize=9, pad=2)
    for axes, text in zip(panels[:, 0], ("clean", "adversarial", f"difference\n±{largest:.3g}"), strict=True):
        axes.set_ylabel(text, fontsize=9.5, rotation=0, ha="right", va="center")
    figure.suptitle(samples.title, fontsize=12, x=0.01, ha="left")
    return figure


def _picture(axes: Axes, picture: np.ndarray, bounds: tuple[float, float], is_difference: bool) -> None:
    unit = np.clip((picture - bounds[0]) / (bounds[1] - bounds[0]), 0, 1)
    unit = unit[..., 0] if unit.ndim == 3 and unit.shape[-1] == 1 else unit
    axes.imshow(unit, cmap="PuOr" if is_difference else "gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def has_trade_off(grid: Grid) -> bool:
    """Whether :func:`pareto_figure` has anything to show: a clean and an attacked accuracy of one network."""
    clean, robust = pareto_points(grid)
    return bool((~np.isnan(clean + robust)).any())
