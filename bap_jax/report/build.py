"""From rows to a report's content: which sections there are and what stands in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from bap_jax.report import figures
from bap_jax.report import measures as measures_layer
from bap_jax.report.cascades import stage_tables
from bap_jax.report.checks import as_checks, checks_sentence, checks_table, trust_sentences
from bap_jax.report.compactions import compactions_table
from bap_jax.report.distances import Distances, distances_table
from bap_jax.report.inputs import History, ReportInput
from bap_jax.report.measures import ArmMeasures, Grid, make_grid
from bap_jax.report.page import DEFINITIONS, MAX_SUMMARIES, Picture, Report, Section, comparison_names, known_arms
from bap_jax.report.rows import Row, check_rows, comparisons_of, in_order
from bap_jax.report.sentences import images_sentence, results, shown_sentence
from bap_jax.report.style import Style, arm_styles
from bap_jax.report.table import Cell, Table
from bap_jax.report.tables import (
    by_score,
    cell_tables,
    cost_table,
    overview_table,
    pairs_table,
    scores_table,
    shown_arms,
    shown_sparsities,
    sizes_of,
    sizes_table,
)
from bap_jax.types import Check

MAX_MAPS, MAX_CURVES, MAX_BARS, MAX_PANELS = 12, 8, 40, 12  # arms per heat map, curves and bars; sparsities per set of curves
MAX_LINES = 40  # of the table of all attacks
BUDGETS = "the budgets ε that images got (quantiles over the batch) with the cutoff, "
SAMPLES = (
    "Above a clean image stands its label, after an arrow what the network says to it if that is something else; above an "
    "adversarial image what the network says (✓ the label, ✗ something else). Below is the difference, multiplied by the factor "
    "beside it (of grey images: purple is brighter than before, orange darker; of colour images mid-grey is unchanged), and "
    "under it its size in the attack's norm. Nothing was chosen: these are the first images."
)
MAX_PASSED = 12  # checks that passed; more of them stand in the details


def build_report(given: ReportInput) -> Report:
    """A report's content."""
    rows, distances = given.rows, given.distances
    check_rows(rows)
    named = as_checks(given.checks)
    grids = [make_grid(rows, comparison) for comparison in comparisons_of(rows)]
    sentences, measures = results(rows, grids, given.num_resamples)
    styles = arm_styles(known_arms(rows, given.histories, given.layers, {one.arm: None for one in distances}))
    several = len(grids) > MAX_SUMMARIES
    lead = _lead_picture(rows, grids[0], measures[0], styles)
    scores = scores_table(grids[0], measures[0], given.folders)
    sections = [_overview_section(rows, grids, measures)] if len(grids) > 1 else []
    sections += [
        _comparison_section(rows, grid, m, name, styles, said if several else said[1:], given.folders, lead)
        for grid, m, name, said in zip(grids, measures, comparison_names(grids), sentences, strict=True)
    ]
    sections += _distance_sections(distances, styles)
    sections += [Section("Cascades, attack by attack", lead=tuple(stage_tables(given.stages)))] if given.stages else []
    cut = compactions_table(given.compactions) if given.compactions else None
    efficiency = tuple(table for table in (sizes_table(rows), cut, cost_table(rows)) if table)
    sections += [Section("Efficiency", tables=efficiency)] if efficiency else []
    sections += _training_sections(given.histories, given.layers, styles) + _sample_sections(given.samples)
    sections += [_checks_section(named)] if named else []
    sections += [Section("Notes and warnings", tuple(str(note) for note in given.notes))] if given.notes else []
    if given.settings or given.versions or given.differs:
        differs = (pairs_table("What differs among the runs", given.differs),) if given.differs else ()
        whole = [("Settings", given.settings), ("Versions", given.versions)]
        folded = tuple(pairs_table(title, pairs) for title, pairs in whole if pairs)
        sections.append(Section("Settings and versions", tables=differs, more=folded, fold="All settings and versions"))
    points = {"Cut points": measures_layer.DEFINITIONS["Cut points"]} if any(grid.comparison.is_cut for grid in grids) else {}
    defined = tuple((Cell(name), Cell(text)) for name, text in (DEFINITIONS | points).items())
    meanings = Table("", ("name", "definition"), defined, num_labels=2)
    sections.append(Section("What the numbers mean", more=(meanings,), fold="Definitions"))
    ordered = by_score(grids[0], measures[0]).arms if len(grids) == 1 else ()
    ranked = [arm for arm in ordered if not math.isnan(measures[0][arm].aer_score.value)]
    trust = trust_sentences(given.checks, ranked)
    first = [said[0] for said in sentences[:MAX_SUMMARIES]]
    rest = [f"The findings under all {len(grids)} attacks, data sets and models stand in their sections."] if several else []
    if any(check.status == "failed" for check in named) and trust == [checks_sentence(named)]:  # it speaks of all the numbers
        first, trust = [*trust, *first], []
    summary = tuple(text for text in (*first, *rest) if text)
    return Report(given.title, summary, named, tuple(sections), tuple(trust), lead, scores, given.command)


def _lead_picture(rows: Sequence[Row], grid: Grid, measures: Mapping[str, ArmMeasures], styles: Mapping[str, Style]) -> Picture:
    """The one picture of the first screen: the score over the budget of training, where there are several; else the scores of the
    arms; of one arm its security curves.
    """
    label, given = grid.comparison.label, figures.prescribed(rows, grid)
    if len(given) > 1 and all(not math.isnan(measures[arm].aer_score.value) for arm in given):
        others = " Level lines: arms that were given none." if len(given) < len(grid.arms) else ""
        return Picture(
            "budgets",
            f"AER score over the ε that training was given.{others} Bands: 95 % bootstrap interval over seeds.",
            f"Lines of the AER score over the budget of training: {label}.",
            partial(figures.budgets_figure, grid, measures, given, styles),
        )
    return (
        _scores_picture("stability", grid, measures, styles) if len(grid.arms) > 1 else _curves_picture("security", grid, styles)
    )


def _scores_picture(name: str, grid: Grid, measures: Mapping[str, ArmMeasures], styles: Mapping[str, Style]) -> Picture:
    bars = by_score(shown_arms(grid, measures, MAX_BARS), measures)
    return Picture(
        name,
        "AER score, and standard deviation over pruning processes. Thin bars: 95 % bootstrap interval over seeds."
        + shown_sentence(bars, grid),
        f"Bars of the AER score and of the spread over pruning processes, one per arm: {grid.comparison.label}.",
        partial(figures.scores_figure, bars, measures, styles),
    )


def _curves_picture(name: str, grid: Grid, styles: Mapping[str, Style], whole: Grid | None = None) -> Picture:
    return Picture(
        name,
        "Accuracy over the attack's budget. Bands: 95 % bootstrap interval over seeds and processes, where it is defined."
        + shown_sentence(grid, whole or grid),
        f"Security curves, one panel per sparsity and one line per arm: {grid.comparison.label}.",
        partial(figures.security_figure, grid, styles),
    )


def _overview_section(rows: Sequence[Row], grids: Sequence[Grid], measures: Sequence[Mapping[str, ArmMeasures]]) -> Section:
    """Every attack beside the others: all arms, or the best one where the whole would be long."""
    whole, title = overview_table(rows, grids, measures), "Every attack beside the others"
    if len(whole.rows) <= MAX_LINES:
        return Section(title, lead=(whole,))
    return Section(title, lead=(overview_table(rows, grids, measures, best_only=True),), more=(whole,))


def _comparison_section(
    rows: Sequence[Row],
    grid: Grid,
    measures: Mapping[str, ArmMeasures],
    name: str,
    styles: Mapping[str, Style],
    sentences: Sequence[str],
    folders: Mapping[str, str] | None,
    lead: Picture,
) -> Section:
    """A comparison; the scores of the first and its lead picture stand on top of the report already."""
    label = grid.comparison.label
    maps = shown_arms(grid, measures, MAX_MAPS)
    curves = shown_arms(grid, measures, MAX_CURVES)
    panels = shown_sparsities(curves, MAX_PANELS)
    pictures = [
        Picture(
            f"aer{name}",
            "Accuracy for every sparsity and ε, one colour scale for all arms." + shown_sentence(maps, grid),
            f"Heat maps of accuracy over sparsity and epsilon, one per arm: {label}. The tables below hold the numbers.",
            partial(figures.aer_figure, maps, measures),
        ),
        _curves_picture(f"security{name}", panels, styles, grid),
    ]
    if len(grid.arms) > 1 or not math.isnan(measures[grid.arms[0]].stability.value):
        pictures.append(_scores_picture(f"stability{name}", grid, measures, styles))
    if figures.has_trade_off(curves):
        pictures.append(
            Picture(
                f"pareto{name}",
                "Clean accuracy, accuracy under attack, and size; the lines follow sparsity. "
                "Filled points are not dominated in all three." + shown_sentence(curves, grid),
                f"Scatter plots of robust against clean accuracy and of robust accuracy against size: {label}.",
                partial(figures.pareto_figure, curves, sizes_of(rows, grid), styles),
            )
        )
    counts = images_sentence(rows, grid.comparison)
    tables = tuple(cell_tables(grid))
    return Section(
        label,
        (*sentences, *([counts] if counts else [])),
        (scores_table(grid, measures, folders),) if name else (),
        tuple(picture for picture in pictures if picture.name != lead.name),
        more=tables,
        fold="Every number: a table per sparsity",
    )


def _checks_section(checks: Sequence[Check]) -> Section:
    """All checks in one table if they are few; else those that passed among the details."""
    passed = [check for check in checks if check.status == "passed"]
    if len(passed) <= MAX_PASSED:
        return Section("Checks", tables=(checks_table(checks),))
    others = [check for check in checks if check.status != "passed"]
    said = f"{len(passed)} of {len(checks)} checks passed; they stand in the details."
    return Section("Checks", (said,), tables=(checks_table(others),) if others else (), more=(checks_table(passed, "Passed"),))


def _distance_sections(distances: Sequence[Distances], styles: Mapping[str, Style]) -> list[Section]:
    if not distances:
        return []
    pictures, paragraphs = [], []
    for i, label in enumerate(in_order(one.label for one in distances)):
        mine = [one for one in distances if one.label == label]
        arms = in_order(one.arm for one in mine)
        shown = [one for one in mine if one.arm in arms[:MAX_CURVES]]
        if len(arms) > MAX_CURVES:
            paragraphs.append(f"{label}: the first {MAX_CURVES} of {len(arms)} arms are drawn; the table holds all.")
        pictures.append(
            Picture(
                "distances" if i == 0 else f"distances-{i + 1}",
                f"Accuracy at every radius ({label}): the share of all images whose nearest adversarial point lies farther. "
                "Thin upright lines: the median distance of the images that are right without an attack.",
                f"Falling curves of accuracy over the radius, one panel per sparsity and one line per arm: {label}.",
                partial(figures.distances_figure, shown, styles),
            )
        )
    return [Section("Minimal distances", tuple(paragraphs), (distances_table(distances),), tuple(pictures))]


def _training_sections(
    histories: Mapping[str, History] | None, layers: Mapping[str, Mapping[str, float]] | None, styles: Mapping[str, Style]
) -> list[Section]:
    pictures: list[Picture] = []
    paragraphs: list[str] = []
    if histories:
        if len(histories) > figures.MAX_HISTORIES:
            paragraphs.append(
                f"Training: {figures.MAX_HISTORIES} of {len(histories)} runs are drawn, those with a budget per image first."
            )
        pictures.append(
            Picture(
                "training",
                ("Over the steps of training: " + (BUDGETS if figures.with_budgets(histories) else "") + "sparsity and loss."),
                "Lines over training steps: budgets and cutoff where images had different ones, sparsity, loss.",
                partial(figures.training_figure, histories, styles),
            )
        )
    if layers:
        if len(layers) > figures.MAX_RUNS:
            paragraphs.append(f"Layers: the first {figures.MAX_RUNS} of {len(layers)} runs are drawn.")
        draw = partial(figures.layers_figure, layers, styles)
        pictures.append(Picture("layers", "Sparsity of every prunable layer.", "A mark per layer and run at its sparsity.", draw))
    return [Section("Training and layers", tuple(paragraphs), pictures=tuple(pictures))] if pictures else []


def _sample_sections(samples: Sequence[figures.Samples]) -> list[Section]:
    pictures = [
        Picture(
            "samples" if i == 0 else f"samples-{i + 1}",
            f"{sample.title}.",
            f"Clean images, adversarial images and their amplified differences: {sample.title}.",
            partial(figures.samples_figure, sample),
        )
        for i, sample in enumerate(samples)
    ]
    return [Section("Sample images", (SAMPLES,), pictures=tuple(pictures))] if pictures else []
