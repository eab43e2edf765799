"""Whole reports: files, self-containedness, sentences, pictures that decode, and the screen."""

import io
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from bap_jax.errors import SettingError
from bap_jax.report import ReportInput, figures, print_report, read_csv, write_report
from bap_jax.report.build import build_report
from bap_jax.report.checks import as_checks, checks_sentence
from bap_jax.report.figures import heat_map
from bap_jax.report.html import report_html
from bap_jax.report.measures import make_grid, measure
from bap_jax.report.rows import comparisons_of
from bap_jax.report.style import arm_styles
from bap_jax.report.tables import sizes_table

NASTY = "</script><script>alert('x')</script> & \"q\" $a_b$ [red]"


def history(arm):
    steps = range(0, 100, 10)
    budget = {"epsilon_mean": 0.2, "epsilon_q05": 0.1, "epsilon_q50": 0.2, "epsilon_q95": 0.3, "cutoff": 0.25}
    return [{"step": t, "sparsity": t / 100, "loss": 2 - t / 100} | (budget if arm == "blind" else {}) for t in steps]


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_rows):
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1))
    rows = make_rows(nonzero=1000)
    folder = tmp_path_factory.mktemp("report")
    given = ReportInput(
        rows,
        NASTY,
        settings={"attack": {"name": NASTY, "num_steps": 20}},
        versions={"jax": "0.10.2"},
        checks=[
            {"name": "moving loss", "status": "warned", "value": "1 %", "advice": NASTY},
            {"name": "in the box", "status": "passed"},
        ],
        notes=[NASTY],
        histories={arm: history(arm) for arm in ("clean", "blind")},
        layers={"blind": {"dense_1": 0.9, "dense_2": 0.5}},
        samples=[figures.Samples(NASTY, images, np.clip(images + 0.1, 0, 1), "0123", "4567")],
        num_resamples=50,
    )
    paths = write_report(given, folder)
    return rows, folder, paths


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.starts, self.data = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.starts.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.data.append(data)


def test_all_files_are_there_and_nothing_else(written):
    _, folder, paths = written
    names = {"aer", "security", "stability", "pareto", "training", "layers", "samples"}
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "svg")} | {"report.html", "report.md", "results.csv"}
    assert set(paths) == {path.name for path in folder.iterdir()} == expected
    assert all(paths[name] == folder / name for name in paths)


def test_results_come_back(written):
    rows, folder, _ = written
    assert read_csv(folder / "results.csv") == rows


def test_pictures_decode_and_are_large_enough_to_read(written):
    _, folder, _ = written
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.width >= 500 and image.height >= 200 and image.width < 4000
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_png_has_the_size_of_its_figure(rows):
    grid = make_grid(rows, comparisons_of(rows)[0])
    figure = figures.security_figure(grid)
    with Image.open(io.BytesIO(figures.png_bytes(figure, dpi=50))) as image:
        assert image.size == tuple(int(side * 50) for side in figure.get_size_inches())


def test_pictures_are_reproducible(rows):
    grid = make_grid(rows, comparisons_of(rows)[0])
    assert figures.svg_bytes(figures.security_figure(grid)) == figures.svg_bytes(figures.security_figure(grid))
    assert figures.png_bytes(figures.security_figure(grid)) == figures.png_bytes(figures.security_figure(grid))


def test_the_page_loads_nothing_and_every_text_is_escaped(written):
    text = (written[1] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    loads = [
        value
        for _, attributes in page.starts
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data", "action")
    ]
    assert loads and all(value.startswith(("data:image/png;base64,", "#")) for value in loads)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)  # clip paths of the pictures
    assert {tag for tag, _ in page.starts}.isdisjoint({"link", "iframe", "object", "embed", "base"})
    assert sum(tag == "script" for tag, _ in page.starts) == 1
    assert sum(NASTY in data for data in page.data) >= 4  # title, heading, setting, advice, note
    assert not any(key.startswith("on") for _, attributes in page.starts for key in attributes)
    pictures = [attributes for tag, attributes in page.starts if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 7 and all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    named = [attributes["id"] for _, attributes in page.starts if "id" in attributes]
    targets = set(named)
    assert len(named) == len(targets)
    assert {value[1:] for value in loads if value.startswith("#")} <= targets


def test_the_page_serves_dark_readers_and_print(written):
    text = (written[1] / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "@media print" in text and "aria-sort" in text


def test_markdown_links_pictures_that_exist(written):
    _, folder, _ = written
    text = (folder / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE)
    assert len(links) == 7 and all((folder / link).is_file() for link in links)
    assert "<script" not in text and "pgd-20 (L∞)" in text


def test_the_summary_names_the_best_arm_the_attack_and_the_distance(rows):
    report = build_report(ReportInput(rows, title="t", num_resamples=50))
    summary = report.summary[0].replace("\u00a0", " ")
    grid = make_grid(rows, comparisons_of(rows)[0])
    found = {arm: measured.aer_score.value for arm, measured in measure(grid, num_resamples=50).items()}
    first, second = sorted(found, key=lambda arm: -found[arm])[:2]
    assert f"“{first}” has the best AER score: {100 * found[first]:.1f} %" in summary
    assert f"{100 * (found[first] - found[second]):.1f} points above the next arm, “{second}”" in summary
    rest = " ".join(report.sections[0].paragraphs).replace("\u00a0", " ")
    assert "under pgd-20 (L∞) at ε = 0.2" in rest and "Budget sensitivity: among the 2 uniform budgets" in rest
    assert [row[0].text for row in report.scores.rows] == sorted(found, key=lambda arm: -found[arm])


def test_one_seed_says_no_interval_and_shows_dashes(tmp_path, make_rows):
    rows = make_rows(seeds=(0,), processes=("fast",))
    write_report(ReportInput(rows, title="one", num_resamples=20), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        "1 seed: no interval" in text and "one seed has no interval" in text and "<td>–</td>" not in text
    )  # a column without a number is gone
    assert "0.0 to 0.0" not in text


def test_missing_cells_are_said_and_shown(tmp_path, make_rows):
    rows = [row for row in make_rows() if not (row["arm"] == "blind" and row["sparsity"] == 0.97 and row["epsilon"] == 0.3)]
    report = build_report(ReportInput(rows, title="t", num_resamples=20))
    assert any(
        "1 of 8 cells (sparsity × ε) were not measured for every arm; scores are over the other 7." in said
        for said in report.sections[0].paragraphs
    )
    write_report(ReportInput(rows, title="t", num_resamples=20), tmp_path)
    blind = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| blind ")]
    assert sum("| – |" in line for line in blind) == 1


def test_arms_without_a_common_cell_are_not_scored(make_rows):
    rows = make_rows({"a": (0.9, 0.1)}, sparsities=(0.5,)) + make_rows({"b": (0.9, 0.1)}, sparsities=(0.9,))
    report = build_report(ReportInput(rows, title="t", num_resamples=20))
    assert any("cannot be compared" in sentence for sentence in report.summary)


def test_an_arm_that_failed_checks_stands_first(make_rows):
    rows = make_rows(seeds=(0,))
    checks = [{"name": "logits", "status": "failed", "value": "softmax", "advice": "return logits"}]
    report = build_report(ReportInput(rows, title="t", checks=checks, num_resamples=20))
    assert report.summary[0] == "Do not rely on these numbers yet: 1 check failed (logits)."
    images = {picture.name: b"<svg/>" for picture in report.pictures}
    page = report_html(report, images)
    assert 'class="summary failed"' in page and ">failed</strong></td>" in page


def test_checks_in_words():
    assert checks_sentence(as_checks([{"name": "a", "status": "passed"}])) == "The check passed."
    assert checks_sentence(()) == ""
    with pytest.raises(SettingError, match="passed, warned or failed"):
        as_checks([{"name": "a", "status": "ok"}])


def test_the_number_of_images_is_said(make_rows):
    rows = [row | {"num_examples": 10_000 if row["attack"] == "clean" else 1000} for row in make_rows(seeds=(0,))]
    section = build_report(ReportInput(rows, title="t", num_resamples=20)).sections[0]
    assert section.paragraphs[-1] == "Images per accuracy: clean 10,000, pgd-20 (L∞) 1,000."


def test_several_attacks_and_clean_only_rows(tmp_path, make_rows):
    second = [row | {"attack": "fgsm"} for row in make_rows() if row["epsilon"] > 0]
    paths = write_report(ReportInput(make_rows() + second, title="two", num_resamples=20), tmp_path / "two")
    assert {"aer.png", "aer-2-digits-mlp-fgsm-linf.png"} <= set(paths)
    clean = make_rows({"only": (0.9, 0.1)}, sparsities=(0.5,), epsilons=(0.0,), seeds=(0,), processes=("p",))
    assert {"aer.png", "security.png"} <= set(
        write_report(ReportInput(clean, title="clean", num_resamples=20), tmp_path / "clean")
    )


@pytest.mark.parametrize("arms, sparsities, epsilons", [(1, 1, 1), (9, 2, 3), (3, 17, 6), (2, 2, 25)])
def test_unusual_shapes_draw(arms, sparsities, epsilons, make_rows):
    rows = make_rows(
        {f"_$arm {i}": (0.9, 0.1) for i in range(arms)},
        sparsities=tuple(round(i / 20, 3) for i in range(sparsities)),
        epsilons=tuple(round(i / 50, 3) for i in range(epsilons)),
        seeds=(0,),
        processes=("p",),
    )
    grid = make_grid(rows, comparisons_of(rows)[0])
    measured = measure(grid, num_resamples=10)
    for figure in (figures.aer_figure(grid, measured), figures.security_figure(grid), figures.scores_figure(grid, measured)):
        assert len(figures.png_bytes(figure, dpi=40)) > 1000
    if figures.has_trade_off(grid):
        assert len(figures.png_bytes(figures.pareto_figure(grid), dpi=40)) > 1000


def test_an_arm_keeps_its_style_everywhere():
    styles = arm_styles(["clean", "uniform 0.2", "uniform 0.3", "blind", "blind, cut only"])
    assert len({style.colour for style in styles.values()}) == 5
    assert len({style.marker for style in styles.values()}) == 5
    assert arm_styles(["blind"])["blind"] == styles["blind"] and arm_styles(["x", "clean"])["clean"] == styles["clean"]
    ablation = arm_styles(["blind by DeepFool", "blind, cut only", "blind"])
    assert ablation["blind"] == styles["blind"] != ablation["blind by DeepFool"]
    many = arm_styles([f"arm {i}" for i in range(24)])
    assert len(set(many.values())) == 24


def test_training_draws_the_runs_with_budgets_however_many_there_are():
    histories = {f"uniform {i}": history("uniform") for i in range(10)} | {"blind": history("blind")}
    chosen = figures.drawn_histories(histories)
    assert len(chosen) == figures.MAX_HISTORIES and list(chosen)[-1] == "blind"


def test_a_legend_of_many_long_names_covers_nothing():
    names = [f"uniform 0.{i}, attack fgsm, label smoothing 0.{i}" for i in range(12)]
    figure = figures.layers_figure({name: {"dense_1": 0.9} for name in names})
    figures.png_bytes(figure, dpi=40)  # lays it out
    axes, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert legend.y1 < axes.y0 and axes.height > 10


def test_not_dominated_needs_no_worse_in_all_and_better_in_one():
    points = np.array([[1.0, 1.0], [1.0, 1.0], [0.5, 2.0], [0.5, 0.5], [np.nan, 9.0]])
    assert figures.not_dominated(points).tolist() == [True, True, True, False, False]


def test_figures_refuse():
    with pytest.raises(SettingError, match="samples"):
        figures.samples_figure(figures.Samples("t", np.zeros((2, 4, 4)), np.zeros((2, 4, 5))))
    with pytest.raises(SettingError, match="histories"):
        figures.training_figure({"a": [{"step": 1}]})
    with pytest.raises(SettingError, match="layers"):
        figures.layers_figure({"a": {}})


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_screen_table_fits(rows, width):
    console = Console(file=io.StringIO(), width=width)
    print_report(rows, console, checks=[{"name": "c", "status": "warned", "value": "v", "advice": "do x"}], num_resamples=20)
    text = console.file.getvalue()
    lines = text.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert sum(line.startswith("uniform 0.2 ") for line in lines) == 1  # one line per arm, nothing folded
    assert "…" not in text and "warned: c = v. do x" in text


def test_many_sparsities_go_into_further_tables(make_rows):
    rows = make_rows(sparsities=tuple(i / 20 for i in range(18)), seeds=(0,))
    console = Console(file=io.StringIO(), width=80)
    print_report(rows, console, num_resamples=20)
    text = console.file.getvalue()
    assert all(f"{5 * i} %" in text for i in range(18)) and "…" not in text
    assert sum(line.startswith("blind ") for line in text.splitlines()) > 1


def test_numbers_on_the_screen_are_the_measures(make_rows):
    rows = make_rows({"a": (0.9, 0.2)}, sparsities=(0.5,), epsilons=(0.0, 0.1), seeds=(0,), processes=("p",))
    console = Console(file=io.StringIO(), width=100)
    print_report(rows, console, num_resamples=20)
    first, second = (f"{100 * row['accuracy']:.1f}" for row in rows)
    mean = f"{50 * (rows[0]['accuracy'] + rows[1]['accuracy']):.1f}"
    line = next(line for line in console.file.getvalue().splitlines() if line.startswith("a "))
    assert line.split() == ["a", first, second, mean, mean, "–"]


def test_an_unfit_folder_is_refused_by_name(tmp_path, make_rows):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="out_dir"):
        write_report(ReportInput(make_rows(seeds=(0,)), title="t", num_resamples=10), tmp_path / "file" / "x")
    with pytest.raises(SettingError, match="rows"):
        write_report(ReportInput([], title="t"), tmp_path)


def test_threads_may_draw_at_once_and_matplotlib_is_left_as_it_was(rows):
    grid, pictures, before = make_grid(rows, comparisons_of(rows)[0]), [], dict(matplotlib.rcParams)
    workers = [
        threading.Thread(target=lambda: pictures.append(figures.svg_bytes(figures.security_figure(grid)))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(pictures) == 3 and len(set(pictures)) == 1
    assert dict(matplotlib.rcParams) == before


def test_importing_the_layer_loads_no_matplotlib_and_drawing_no_pyplot(tmp_path):
    code = (
        "import json, sys, bap_jax.report; a = 'matplotlib' in sys.modules; import bap_jax.report.build;"
        "print(json.dumps([a, 'matplotlib.pyplot' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]


def failing(*arms):
    return {
        "name": "input gradients",
        "status": "failed",
        "value": "36 of 359",
        "advice": "attack the margin",
        "arms": list(arms),
    }


def test_a_check_that_failed_for_one_arm_leaves_the_ranking_of_the_others(make_rows):
    rows = make_rows(seeds=(0,))
    baseline = build_report(ReportInput(rows, title="t", checks=[failing("uniform 0.2")], num_resamples=20))
    assert baseline.summary[0].startswith("On digits") and "A check failed for “uniform 0.2” alone" in baseline.trust[0]
    assert "ranking of the other 3 arms stands without it, “blind” first" in baseline.trust[0]
    winner = build_report(ReportInput(rows, title="t", checks=[failing("blind")], num_resamples=20)).trust[0]
    assert "The ranking does not stand" in winner and "“uniform 0.3” is first" in winner
    everyone = build_report(ReportInput(rows, title="t", checks=[failing(*(row["arm"] for row in rows))], num_resamples=20))
    assert everyone.summary[0].startswith("Do not rely on these numbers yet") and not everyone.trust


def test_the_first_screen_is_the_score_over_the_budget_the_scores_and_the_command(tmp_path, make_rows):
    rows = [row | {"train_epsilon": float(row["arm"].split()[1]) if " " in row["arm"] else None} for row in make_rows()]
    folders = {"blind": "../runs/blind/"}
    given = ReportInput(rows, title="t", num_resamples=20, command="bap report <x>", differs={"seed": "0, 1"}, folders=folders)
    report = build_report(given)
    assert report.lead.name == "budgets" and report.scores.rows[0][0] == ("blind", None, "", False, "", "../runs/blind/")
    text = write_report(given, tmp_path)["report.html"].read_text(encoding="utf-8")
    places = [text.index(what) for what in ('id="budgets-', "<caption>Scores", "<code>bap report &lt;x&gt;</code>", "<nav")]
    assert places == sorted(places) and '<a href="../runs/blind/">blind</a>' in text and '<tr data-arm="blind">' in text
    assert "<title>uniform 0.2: " in text and "What differs among the runs" in text
    assert "bap report <x>" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_sizes_are_told_once_per_sparsity(make_rows):
    rows = [
        row | {"nonzero": round(5000 * (1 - row["sparsity"])), "bytes": 900 + (row["arm"] == "blind") * 100}
        for row in make_rows()
    ]
    table = sizes_table(rows)
    assert table.columns == ("sparsity", "non-zero parameters", "bytes on disk, packed")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["80 %", "1,000", "900 to 1,000"],
        ["97 %", "150", "900 to 1,000"],
    ]


def test_digits_of_a_heat_map_can_be_read_on_every_colour():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for value in range(101):
        cell, digits = luminance(matplotlib.colormaps["cividis"](value / 100)), 0.0 if value >= heat_map.LIGHT_FROM else 1.0
        assert (max(cell, digits) + 0.05) / (min(cell, digits) + 0.05) > 3  # of bold text, WCAG 2 asks for 3


def test_marks_of_layers_lie_on_an_axis_that_fits():
    figure = figures.layers_figure({"a": {"fc1": 0.961, "fc2": 0.972}, "b": {"fc1": 0.962, "fc2": 0.97}})
    low, high = figure.axes[0].get_xlim()
    assert 90 < low < 96.1 and 97.2 < high < 100
