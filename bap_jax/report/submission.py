"""What the adversarial pruning benchmark and RobustBench ask of a new network, in their own forms and words."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bap_jax.errors import SettingError
from bap_jax.types import Taxonomy

ARCHITECTURES: Mapping[str, str] = MappingProxyType({"resnet18": "R18", "vgg16_survey": "V16"})
DATA: Mapping[str, str] = MappingProxyType({"cifar10": "CIFAR10", "svhn_cropped": "SVHN"})
SPARSITIES: Mapping[str, tuple[float, ...]] = MappingProxyType({"US": (0.9, 0.95, 0.99), "S": (0.5, 0.75, 0.9)})
NUM_MODELS = 3  # a method has to come with

_AT, _KD, _NT = "Adversarial Training (AT) PGD", "Knowledge Distillation (KD)", "Natural Training (NT)"
_TRAINING: Mapping[str, str] = MappingProxyType(
    {
        "AT": _AT,
        "adversarial training": _AT,
        "AT of scores": _AT,
        "FGSM-AT": "Adversarial Training (AT) FGSM",
        "blind AT": "Adversarial Training (AT), blind",
        "blind adversarial training": "Adversarial Training (AT), blind",
        "KD": _KD,
        "NT": _NT,
        "clean training": _NT,
        "none": "None",
    }
)
_SHOTS = ("1S", "IT")
_STRUCTURES: Mapping[str, str] = MappingProxyType(
    {"US": "Unstructured (US)", "S": "Structured (S) filters", "US, S": "Unstructured (US), Structured (S) filters"}
)
_LOCALITIES: Mapping[str, str] = MappingProxyType({"L": "Local Pruning (L)", "G": "Global Pruning (G)"})
_CRITERIA: Mapping[str, str] = MappingProxyType(
    {
        "LWM": "Lowest Weight Magnitude LWM",
        "SOLWM": "Solver Based LWM (SOLWM)",
        "RELWM": "Sparsity Based LWM (SPALWM)",  # as their file of entries calls it
        "LIS": "Least Importance Score (LIS)",
        "HGM": "Highest Gradient Magnitude (HGM)",
        "BCS": "Bayesian Connectivity Sampling (BCS)",
    }
)
# Pipeline -> its name, and the keys of what is told of it, in the order of a Taxonomy's words; colons and blanks are theirs.
_PIPELINES: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "after": (
            "A-Methods Pruning After Training",
            ("A: Pretraining ", "A: Finetuning", "A: OneShot (1S) vs Iterative (IT)"),
        ),
        "before": (
            "B-Methods Pruning Before Training",
            ("B: Pruning step ", "B: Training step ", "B: OneShot (1S) vs Iterative (IT)"),
        ),
        "during": ("D-Methods Pruning During Training", ("D: Training step ",)),
    }
)


class About(NamedTuple):
    """What only its authors know of a method: the content of an ``about.toml``."""

    name: str  # short, such as HYDRA
    title: str  # of the paper
    authors: tuple[str, ...]
    year: int
    link: str
    venue: str = ""
    additional_data: bool = False  # whether training saw images from elsewhere
    reported: str = ""  # robust accuracy as the paper has it, if it has one
    taxonomy: Taxonomy | None = None  # of a method that this package does not know

    @property
    def key(self) -> str:
        """The survey's ``ap_key``: ``Name_FirstauthorYearFirstword``.

        Example:
          >>> About("HYDRA", "HYDRA: Pruning Networks", ("Vikash Sehwag", "Shiqi Wang"), 2020, "https://arxiv.org/x").key
          'HYDRA_Sehwag2020Hydra'
        """
        first = _letters(self.title.split()[0])
        return f"{_letters(self.name)}_{_letters(self.authors[0].split()[-1])}{self.year}{first[:1].upper()}{first[1:].lower()}"


def about_of(told: Mapping[str, Any], where: str = "--about") -> About:
    """What a parsed ``about.toml`` says.

    Args:
      told: its top-level values.
      where: the file, for errors.

    Raises:
      SettingError: a value that is missing, unknown, or of another type.

    Example:
      >>> about_of({"name": "BAP", "title": "Blind pruning", "authors": ["Haidong Xie"], "year": 2021, "link": "x"}).key
      'BAP_Xie2021Blind'
    """
    kinds: dict[str, Any] = {
        "name": str, "title": str, "authors": list, "year": int, "link": str, "venue": str,
        "additional_data": bool, "reported": str, "taxonomy": dict,
    }  # fmt: skip
    words = {str: "a text", list: "a list of names", int: "a whole number", bool: "true or false", dict: "a table"}
    for name, value in told.items():
        if name not in kinds:
            raise SettingError(where, name, "only " + ", ".join(kinds))
        fits = type(value) is kinds[name] and (kinds[name] is not list or (value and all(type(one) is str for one in value)))
        if not fits or (name in About._fields[:5] and not value) or (type(value) is str and not value.strip()):
            raise SettingError(where, f"{name} = {value!r}", f"{name}, {words[kinds[name]]}")
    for name in About._fields[:5]:
        if name not in told:
            raise SettingError(where, ", ".join(told) or "nothing", f"also {name}, {words[kinds[name]]}")
    about = About(**{**told, "authors": tuple(told["authors"]), "taxonomy": _taxonomy(told.get("taxonomy"), where)})
    for text, what in ((about.name, "name"), (about.title.split()[0], "title"), (about.authors[0].split()[-1], "authors")):
        if not _letters(text):
            raise SettingError(where, f"{what} = {text!r}", f"a {what} with letters, which the benchmark's key is made of")
    return about


def _taxonomy(told: Mapping[str, Any] | None, where: str) -> Taxonomy | None:
    """The table ``[taxonomy]``: pipeline, structure, locality and criterion, as :class:`bap_jax.types.Taxonomy` has them."""
    names = Taxonomy._fields[:4]
    if told is None:
        return None
    if set(told) != set(names) or not all(type(value) is str for value in told.values()):
        raise SettingError(where, f"taxonomy = {dict(told)!r}", f"a table with the texts {', '.join(names)}")
    return Taxonomy(**told, attacks=True, pretrained=told["pipeline"].startswith("after"))


def _letters(text: str) -> str:
    """Letters and digits alone, without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]", "", plain)


class Measured(NamedTuple):
    """One network as the benchmark's protocol measured it; accuracies are fractions."""

    name: str  # of the run
    architecture: str
    data: str
    structure: str  # US or S
    sparsity: float
    clean: float
    autoattack: float  # at 0.031
    autoattack_nominal: float  # at 8/255
    ho_fmn: float  # share of distances above 8/255
    num_attacked: int
    num_measured: int
    differs: tuple[str, ...] = ()  # from the protocol
    normalised: bool = False  # whether the network normalises its images

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What keeps it out of the benchmark, whatever its numbers.

        Example:
          >>> Measured("x", "resnet8", "cifar10", "US", 0.9, 0.5, 0.3, 0.3, 0.3, 100, 64).obstacles
          ('architecture',)
        """
        fits = {
            "architecture": self.architecture in ARCHITECTURES,
            "data": self.data in DATA,
            "sparsity": any(math.isclose(self.sparsity, one, abs_tol=5e-4) for one in SPARSITIES[self.structure]),
        }
        return tuple(name for name, fit in fits.items() if not fit)

    @property
    def status(self) -> str:
        return f"not eligible: {', '.join(self.obstacles)}" if self.obstacles else "eligible"

    def key(self, ap_key: str) -> str | None:
        """The benchmark's key of a network; None where it takes none such.

        Example:
          >>> Measured("x", "resnet18", "cifar10", "US", 0.9, 0.8, 0.4, 0.4, 0.4, 10_000, 128).key("BAP_Xie2021Blind")
          'BAP_Xie2021Blind_R18_CIFAR10_US_90'
        """
        if self.obstacles:
            return None
        parts = (ARCHITECTURES[self.architecture], DATA[self.data], self.structure, f"{100 * self.sparsity:.0f}")
        return "_".join((ap_key, *parts))


def taxonomy_entry(taxonomy: Taxonomy, about: About) -> dict[str, str]:
    """A method's line in the survey's taxonomy: their keys, in their order.

    Args:
      taxonomy: of the method.
      about: of its authors.

    Raises:
      SettingError: a method that prunes nothing, which the survey has no place for.

    Example:
      >>> about = About("X", "A title", ("A Name",), 2026, "https://example.org")
      >>> taxonomy_entry(Taxonomy("during: AT", "US", "L", "LWM", attacks=True, pretrained=False), about)["D: Training step "]
      'Adversarial Training (AT) PGD'
    """
    when, _, told = taxonomy.pipeline.partition(": ")
    if when not in _PIPELINES:
        raise SettingError("--method", taxonomy.pipeline, "a method that prunes before, during or after training")
    pipeline, keys = _PIPELINES[when]
    words = [word.strip() for word in told.split(", ")]
    values = [word if word in _SHOTS else _TRAINING.get(word, word) for word in words]
    return {
        "link_to_paper": about.link,
        "ap_key": about.key,
        "Type of Pipeline:": pipeline,
        **{key: values[place] if place < len(values) and values[place] else "Not Specified" for place, key in enumerate(keys)},
        "Pruning structure": _STRUCTURES.get(taxonomy.structure, taxonomy.structure),
        "Pruning locality": ", ".join(_LOCALITIES.get(one, one) for one in taxonomy.locality.split(", ")),
        "Pruning criterion": _CRITERIA.get(taxonomy.criterion, taxonomy.criterion),
    }


def check_entry(entry: Mapping[str, Any]) -> None:
    """Holds an entry against the benchmark's form.

    Raises:
      SettingError: a key that is missing, unknown or in another place than theirs, or a value that the form does not have.

    Example:
      >>> check_entry({"ap_key": "X"})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
          ...
      bap_jax.errors.SettingError: entry = ...
    """
    kinds = {name: keys for name, keys in _PIPELINES.values()}
    own = kinds.get(str(entry.get("Type of Pipeline:")))
    if own is None:
        raise SettingError("entry", entry.get("Type of Pipeline:"), "a Type of Pipeline: out of " + ", ".join(kinds))
    keys = ["link_to_paper", "ap_key", "Type of Pipeline:", *own, *_SPECIFICS]
    if list(entry) != keys:
        raise SettingError("entry", list(entry), f"the keys {keys}")
    patterns: dict[str, str] = {
        "link_to_paper": r"\S+",
        "ap_key": r"[A-Za-z0-9]+_[A-Za-z]+\d{4}[A-Z0-9][A-Za-z0-9]*",
        "Pruning structure": r"(Unstructured \(US\)(, )?)?(Structured \(S\) (filters|channels|Kernel))?(?<=.)",
        "Pruning locality": r"(Local Pruning \(L\)|Global Pruning \(G\)|, )+|Not Specified",
        "Pruning criterion": "|".join(re.escape(one) for one in _CRITERIA.values()),
        **{key: r"1S|IT|Not Specified" if "OneShot" in key else r"\S.*" for key in own},
    }
    for key, pattern in patterns.items():
        if type(entry[key]) is not str or not re.fullmatch(pattern, entry[key]):
            raise SettingError("entry", f"{key!r}: {entry[key]!r}", f"a text like {pattern}")


_SPECIFICS = ("Pruning structure", "Pruning locality", "Pruning criterion")


def issue_text(entry: Mapping[str, str], models: Sequence[Measured]) -> str:
    """The benchmark's issue "New AP method", filled in; what only its author can fill in is left as the form has it.

    Args:
      entry: of :func:`taxonomy_entry`.
      models: those that are eligible come first; of the others is said why they are not.

    Example:
      >>> model = Measured("x", "resnet18", "cifar10", "US", 0.9, 0.8, 0.4, 0.4, 0.4, 10_000, 128)
      >>> "_Clean Accuracy:_ 80.00" in issue_text({"ap_key": "X_Y2026Z"}, [model])
      True
    """
    taken = [model for model in models if not model.obstacles]
    left = [model for model in models if model.obstacles]
    parts = [
        "# Loading Section",
        "## JSON Entry",
        f"```json\n{json.dumps(entry, indent=2, ensure_ascii=False, allow_nan=False)}\n```",
    ]
    groups: dict[tuple[str, str, str], set[float]] = {}
    for number, model in enumerate(taken, 1):
        groups.setdefault((model.architecture, model.data, model.structure), set()).add(round(model.sparsity, 4))
        link = f'"{model.key(entry["ap_key"])}" : ["your_gdrive_link_id", "{{}}"]'
        parts.append(
            f"## Evaluation Results of Model n°{number}\n"
            f"_Model GDrive:_ {link.format('.safetensors')}\n"
            f"_Distances GDrive:_ {link.format('.npz')}\n\n"
            f"_Clean Accuracy:_ {_percent(model.clean)}\n"
            f"_Robust Accuracy (AA):_ {_percent(model.autoattack)}\n"
            f"_Robust Accuracy (HO-FMN):_ {_percent(model.ho_fmn)}" + "".join(f"\n\nNote: {note}." for note in model.differs)
        )
    if not any(len(found) >= NUM_MODELS for found in groups.values()):
        count = max((len(found) for found in groups.values()), default=0)
        parts.append(
            f"**Not complete yet:** the benchmark asks for {NUM_MODELS} sparsities of one architecture, data set and structure; "
            f"here are {count}."
        )
    normalised = [str(model.key(entry["ap_key"])) for model in taken if model.normalised]
    needs = (
        f"These normalise their images before the first layer: {', '.join(normalised)}."
        if normalised
        else "No model needs normalisation: images lie in [0, 1]."
    )
    parts.append(
        "## Architecture details and normalization\n"
        f"{needs} The weights have the names of the base models, masks multiplied in. They are safetensors: "
        "`load_state_dict(safetensors.torch.load_file(file))`. The distances are an npz with `distances` [N]."
    )
    if left:
        lines = [f"- {model.name}: {model.status} ({model.architecture} on {model.data}, {_numbers(model)})" for model in left]
        parts.append("## Not part of this issue\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _numbers(model: Measured) -> str:
    told = {"clean": model.clean, "AA": model.autoattack, "HO-FMN": model.ho_fmn}
    return ", ".join(
        [f"sparsity {100 * model.sparsity:g} %", *(f"{name} {_percent(value)}" for name, value in told.items()), *model.differs]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "resnet18": "ResNet-18",
        "resnet34": "ResNet-34",
        "resnet50": "ResNet-50",
        "preactresnet18": "PreActResNet-18",
        "vgg16_bn": "VGG-16-BN",
        "vgg16_survey": "VGG-16",
    }
)


def model_info(about: About, model: Measured) -> dict[str, Any]:
    """What RobustBench asks of a network in the L∞ threat model, as a file of its ``model_info`` has it.

    Its radius is 8/255, and its accuracies are of 10,000 test images: of fewer, ``footnote`` says so.

    Example:
      >>> about = About("X", "A title", ("A Name", "B Other"), 2026, "https://example.org", venue="arXiv 2026")
      >>> model = Measured("x", "resnet18", "cifar10", "US", 0.9, 0.8, 0.41, 0.4, 0.4, 10_000, 128)
      >>> info = model_info(about, model)
      >>> info["authors"], info["clean_acc"], info["autoattack_acc"], info["eps"]
      ('A Name, B Other', '80.00', '40.00', '8/255')
    """
    info = {
        "link": about.link,
        "name": about.title,
        "authors": ", ".join(about.authors),
        "additional_data": about.additional_data,
        "number_forward_passes": 1,
        "dataset": model.data,
        "venue": about.venue or None,
        "architecture": _NAMES.get(model.architecture, model.architecture),
        "eps": "8/255",
        "clean_acc": _percent(model.clean),
        "reported": about.reported or None,
        "autoattack_acc": _percent(model.autoattack_nominal),
    }
    notes = [f"{100 * model.sparsity:g} % of the weights pruned", *model.differs]
    return info | {"footnote": "; ".join(notes)}
