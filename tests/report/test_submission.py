"""What the benchmark and RobustBench are handed: their keys in their order, their words; held against entries of theirs."""

import json

import pytest

from bap_jax.errors import SettingError
from bap_jax.methods import METHODS, method_of
from bap_jax.report.submission import About, Measured, about_of, check_entry, issue_text, model_info, taxonomy_entry

ABOUT = About("HYDRA", "HYDRA: Pruning Networks", ("Vikash Sehwag", "Shiqi Wang"), 2020, "https://arxiv.org/pdf/2002.10509.pdf")
TOLD = {"name": "X", "title": "A title", "authors": ["A. Name"], "year": 2026, "link": "https://example.org"}
MODEL = Measured("x", "resnet18", "cifar10", "US", 0.9, 0.8338, 0.4540, 0.4512, 0.4531, 10_000, 128)
# Of taxonomy/taxonomy.json at commit 0437e9b of pralab/AdversarialPruningBenchmark: one entry of each pipeline.
THEIRS = [
    {
        "link_to_paper": "https://openreview.net/pdf?id=sAJDi9lD06L",
        "ap_key": "HARP_Zhao2023Holistic",
        "Type of Pipeline:": "A-Methods Pruning After Training",
        "A: Pretraining ": "Adversarial Training (AT) TRADES",
        "A: Finetuning": "Adversarial Training (AT) TRADES",
        "A: OneShot (1S) vs Iterative (IT)": "1S",
        "Pruning structure": "Unstructured (US), Structured (S) channels",
        "Pruning locality": "Global Pruning (G)",
        "Pruning criterion": "Least Importance Score (LIS)",
    },
    {
        "link_to_paper": "https://arxiv.org/pdf/2202.09844.pdf",
        "ap_key": "RobustBird_Chen2021Sparsity",
        "Type of Pipeline:": "B-Methods Pruning Before Training",
        "B: Pruning step ": "Adversarial Training (AT) PGD",
        "B: Training step ": "Adversarial Training (AT) PGD",
        "B: OneShot (1S) vs Iterative (IT)": "IT",
        "Pruning structure": "Unstructured (US)",
        "Pruning locality": "Global Pruning (G)",
        "Pruning criterion": "Lowest Weight Magnitude LWM",
    },
    {
        "link_to_paper": "https://ojs.aaai.org/index.php/AAAI/article/view/26027",
        "ap_key": "TwinRep_Li2023Learning",
        "Type of Pipeline:": "D-Methods Pruning During Training",
        "D: Training step ": "Adversarial Training (AT) PGD",
        "Pruning structure": "Unstructured (US), Structured (S) channels",
        "Pruning locality": "Global Pruning (G)",
        "Pruning criterion": "Sparsity Based LWM (SPALWM)",
    },
]


@pytest.mark.parametrize("entry", THEIRS, ids=lambda entry: entry["ap_key"])
def test_the_schema_takes_what_the_benchmark_has(entry):
    check_entry(entry)
    for key in entry:
        with pytest.raises(SettingError, match="entry"):
            check_entry({name: value for name, value in entry.items() if name != key})
        with pytest.raises(SettingError, match="entry"):
            check_entry(entry | {key: ""})
    with pytest.raises(SettingError, match="entry"):
        check_entry(dict(reversed(entry.items())))
    with pytest.raises(SettingError, match="Pretraining"):
        check_entry(entry | {"A: Pretraining": "AT"})


@pytest.mark.parametrize("name", [name for name in METHODS if method_of(name).taxonomy.pipeline != "none"])
def test_every_method_of_the_package_has_a_place_there(name):
    entry = taxonomy_entry(method_of(name).taxonomy, ABOUT)
    check_entry(entry)
    assert entry["ap_key"] == "HYDRA_Sehwag2020Hydra"
    assert "Not Specified" not in entry.values()


def test_places_of_methods_are_those_that_the_survey_gives_them():
    hydra, rst, li20 = (taxonomy_entry(method_of(name).taxonomy, ABOUT) for name in ("hydra", "rst", "li20"))
    assert hydra["A: OneShot (1S) vs Iterative (IT)"] == "1S" and hydra["Pruning criterion"] == "Least Importance Score (LIS)"
    assert rst["B: Training step "] == "None" and rst["B: Pruning step "] == "Adversarial Training (AT) PGD"
    assert li20["B: Training step "] == "Adversarial Training (AT) PGD" and li20["Pruning locality"] == "Global Pruning (G)"
    with pytest.raises(SettingError, match="prunes"):
        taxonomy_entry(method_of("hydra").taxonomy._replace(pipeline="none"), ABOUT)


def test_keys_of_networks():
    assert MODEL.key("HARP_Zhao2023Holistic") == "HARP_Zhao2023Holistic_R18_CIFAR10_US_90"
    svhn = MODEL._replace(architecture="vgg16_survey", data="svhn_cropped", structure="S", sparsity=0.75)
    assert svhn.key("PwoA_Jian2022Pruning") == "PwoA_Jian2022Pruning_V16_SVHN_S_75"
    foreign = MODEL._replace(architecture="resnet8", sparsity=0.8)
    assert foreign.key("X") is None and foreign.status == "not eligible: architecture, sparsity"
    assert MODEL._replace(structure="S", sparsity=0.95).obstacles == ("sparsity",) and MODEL.status == "eligible"
    accents = ABOUT._replace(name="BCS-P", title="Training networks", authors=("Ozan Özdenizci",), year=2021)
    assert accents.key == "BCSP_Ozdenizci2021Training"


def test_the_issue_has_the_benchmarks_form():
    entry = taxonomy_entry(method_of("hydra").taxonomy, ABOUT)
    several = [MODEL, MODEL._replace(name="y", sparsity=0.95), MODEL._replace(name="z", sparsity=0.99, normalised=True)]
    text = issue_text(entry, several)
    assert json.loads(text.partition("```json\n")[2].partition("\n```")[0]) == entry
    assert text.count("_Clean Accuracy:_ 83.38") == text.count("_Robust Accuracy (AA):_ 45.40") == 3
    assert "Model n°3" in text and "_Robust Accuracy (HO-FMN):_ 45.31" in text
    assert '"HYDRA_Sehwag2020Hydra_R18_CIFAR10_US_95" : ["your_gdrive_link_id", ".safetensors"]' in text
    assert "Not complete" not in text and "normalise their images" in text and "US_99." in text
    few = issue_text(entry, [MODEL, MODEL._replace(name="small", architecture="resnet8", differs=("32 images",))])
    assert "here are 1" in few and "small: not eligible: architecture" in few and "32 images" in few


def test_robustbench_gets_its_fields():
    info = model_info(ABOUT._replace(venue="NeurIPS 2020", additional_data=True, reported="62.24"), MODEL)
    wanted = ["link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps"]
    assert list(info)[:12] == [*wanted, "clean_acc", "reported", "autoattack_acc"]  # as in their model_info/cifar10/Linf
    assert info["autoattack_acc"] == "45.12" and info["architecture"] == "ResNet-18" and info["reported"] == "62.24"
    assert info["authors"] == "Vikash Sehwag, Shiqi Wang" and "90 %" in info["footnote"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"year": "2026"}, "a whole number"), ({"authors": []}, "a list of names"), ({"authors": "A"}, "a list of names"),
        ({"colour": "red"}, "only name"), ({"link": " "}, "link"), ({"name": "–"}, "letters"),
        ({"taxonomy": {"pipeline": "x"}}, "a table with"), ({"additional_data": 1}, "true or false"),
    ],
)  # fmt: skip
def test_what_an_about_file_cannot_say(more, told):
    with pytest.raises(SettingError, match=told):
        about_of(TOLD | more)


def test_what_an_about_file_says():
    assert about_of(TOLD).key == "X_Name2026A" and about_of(TOLD).authors == ("A. Name",)
    with pytest.raises(SettingError, match="also title"):
        about_of({"name": "X"})
    words = {"pipeline": "after: NT, AT, IT", "structure": "US", "locality": "G", "criterion": "HGM"}
    entry = taxonomy_entry(about_of(TOLD | {"taxonomy": words}).taxonomy, about_of(TOLD))
    check_entry(entry)
    assert entry["A: Pretraining "] == "Natural Training (NT)" and entry["A: OneShot (1S) vs Iterative (IT)"] == "IT"
