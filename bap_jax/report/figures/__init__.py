"""The pictures of a report, one file per kind.

Every function returns a :class:`matplotlib.figure.Figure` on white; :func:`png_bytes` and :func:`svg_bytes` render it. A style
for every arm comes from :func:`bap_jax.report.style.arm_styles`.
"""

from bap_jax.report.figures.budgets import budgets_figure, prescribed
from bap_jax.report.figures.canvas import png_bytes, render, svg_bytes
from bap_jax.report.figures.distances import distances_figure
from bap_jax.report.figures.heat_map import aer_figure
from bap_jax.report.figures.layers import MAX_RUNS, layers_figure
from bap_jax.report.figures.pareto import has_trade_off, not_dominated, pareto_figure, pareto_points
from bap_jax.report.figures.samples import MAX_IMAGES, Samples, amplification, samples_figure
from bap_jax.report.figures.scores import scores_figure
from bap_jax.report.figures.security import security_figure
from bap_jax.report.figures.training import MAX_HISTORIES, drawn_histories, training_figure, with_budgets

__all__ = [
    "MAX_HISTORIES",
    "MAX_IMAGES",
    "MAX_RUNS",
    "Samples",
    "aer_figure",
    "amplification",
    "budgets_figure",
    "distances_figure",
    "drawn_histories",
    "has_trade_off",
    "layers_figure",
    "not_dominated",
    "pareto_figure",
    "pareto_points",
    "png_bytes",
    "prescribed",
    "render",
    "samples_figure",
    "scores_figure",
    "security_figure",
    "svg_bytes",
    "training_figure",
    "with_budgets",
]
