"""Adversarial images for a report: those that an evaluation kept, or a PGD made on the spot."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bap_jax.data import Source, make_batch
from bap_jax.errors import CheckpointError, DataError, SettingError
from bap_jax.evaluation import ATTACKS, compiled, named_threat
from bap_jax.report.rows import NORM_NAMES, format_epsilon, format_sparsity
from bap_jax.runs.datasets import only_data, split_of
from bap_jax.runs.plan import PGD_STEPS
from bap_jax.runs.records import which_of
from bap_jax.runs.report_inputs import Record, attack_of, one_record_per_arm, stored_arrays
from bap_jax.runs.restore import stored_network
from bap_jax.runs.settings import Settings
from bap_jax.runs.trust import NOTHING, Trust
from bap_jax.types import Batch, Bounds, Norm

if TYPE_CHECKING:
    from bap_jax.report.figures import Samples

MAX_ARMS, MAX_ATTACKS = 2, 3  # of a report, and of an evaluation


def samples_of(
    records: Sequence[Record], count: int, *, data_dir: str | None = None, trust: Trust = NOTHING
) -> tuple[list[Samples], list[str]]:
    """Clean and adversarial images of one network per arm: its sparsest, the first among equals. Of more than two arms two are
    shown, those without a prescribed budget first.

    Where an evaluation of it has saved examples (``bap evaluate --save-examples``), its first images are shown, under up to three
    of its attacks, each at the middle one of its radii. Else PGD with 20 steps attacks the first images of the split, at the
    middle one of the radii that the network was evaluated at.

    Args:
      records: evaluations.
      count: images of each picture; none at 0.
      data_dir: where prepared data sets are, if not where the runs found them.
      trust: which code the runs' configurations may name.

    Returns:
      The pictures, and in words what could not be had: a report is no reason to fail where the data is elsewhere.
    """
    samples, notes = [], []
    chosen = one_record_per_arm(records) if count else {}
    prescribed = [arm for arm, record in chosen.items() if record["rows"][0].get("budget") == "uniform"]
    first = sorted(chosen, key=lambda arm: arm in prescribed)[:MAX_ARMS]  # of very many arms these are the most alike
    for arm, record in ((arm, record) for arm, record in chosen.items() if arm in first):
        mine = [r for r in records if r["run"] == record["run"] and r["step"] == record["step"]]
        record = next((r for r in mine if stored_arrays(r, ".examples.npz") is not None), record)
        try:
            samples += _samples(arm, record, count, data_dir, trust)
        except (SettingError, DataError, CheckpointError) as error:
            notes.append(f"No sample images of “{arm}”: {error}")
    if len(chosen) > MAX_ARMS:
        notes.append(f"Sample images are of {MAX_ARMS} of {len(chosen)} arms, uniform budgets last.")
    return samples, notes


def _samples(arm: str, record: Record, count: int, data_dir: str | None, trust: Trust) -> list[Samples]:
    from bap_jax.report.figures import Samples  # matplotlib takes its time

    stored_run = stored_network(record["run"], which_of(record), trust)
    settings = stored_run.settings
    dataset = _dataset(only_data(dataclasses.replace(settings, limit=None)), record["plan"]["split"], data_dir)
    net = stored_run.on(dataset)
    predict, weights = net.predict, net.weights
    stored = stored_arrays(record, ".examples.npz")
    index = np.arange(min(count, len(dataset))) if stored is None else stored["index"][:count]
    batch = Batch(*map(jax.numpy.asarray, make_batch(dataset, index)))
    attacked = _stored(record, stored, len(index)) if stored is not None else _made(record, predict, weights, batch, dataset)
    clean = compiled.judge(predict, weights, batch, batch.images, dataset.bounds)
    title = f"{arm}, {format_sparsity(record['rows'][0]['sparsity'])} sparse"
    found = []
    for said, norm, images in attacked:
        judged = compiled.judge(predict, weights, batch, jax.numpy.asarray(images), dataset.bounds)
        found.append(
            Samples(
                f"{title}: {said}",
                np.asarray(batch.images),
                np.asarray(images),
                labels=_texts(batch.labels),
                predictions=_answers(judged),
                bounds=(float(dataset.bounds.lower), float(dataset.bounds.upper)),
                clean_predictions=_answers(clean),
                distances=[float(size) for size in judged[norm]],
            )
        )
    return found


@functools.lru_cache(maxsize=2)
def _dataset(settings: Settings, split: str, data_dir: str | None) -> Source:
    return split_of(settings, split, data_dir)


def _stored(record: Record, stored: dict[str, np.ndarray], count: int) -> list[tuple[str, str, np.ndarray]]:
    """(attack in words, norm, images) of each attack whose images were kept, at the middle one of its radii."""
    told = stored_arrays(record, ".npz") or {}
    found = []
    for name in [name for name in stored if name != "index"][:MAX_ATTACKS]:
        attack, norm = attack_of(record, name)
        radii = [float(radius) for radius in told.get(f"epsilon/{name}", ()) if radius > 0]
        which = len(stored[name]) // 2
        at = f"ε = {format_epsilon(radii[which])}" if len(radii) == len(stored[name]) > 0 else "radius not recorded"
        at = "the nearest points found" if f"distance/{name}" in told else at
        found.append((f"{attack} ({NORM_NAMES.get(norm, norm)}), {at}", norm, stored[name][which, :count]))
    return found


def _made(record: Record, predict: Callable, weights: Any, batch: Batch, dataset: Source) -> list[tuple[str, str, np.ndarray]]:
    """(attack in words, norm, images) of a PGD on the spot.

    Raises:
      SettingError: the network was evaluated in no norm that PGD works in.
    """
    norms = ATTACKS["pgd"].norms
    radii = {
        norm: sorted({row["epsilon"] for row in record["rows"] if row["norm"] == norm and row["epsilon"] > 0}) for norm in norms
    }
    norm = next((norm for norm in norms if radii[norm]), None)
    if norm is None:
        raise SettingError(
            "--epsilon", record["plan"]["epsilon"], "a radius above 0 in linf, l2, l1 or rms, for PGD to make images"
        )
    epsilon = radii[norm][len(radii[norm]) // 2]
    key = jax.random.key(record["plan"]["seed"])
    attack = _pgd(norm, float(dataset.bounds.lower), float(dataset.bounds.upper))
    result = compiled.attack(predict, attack, weights, key, batch, jax.numpy.float32(epsilon), 0)
    said = f"pgd-{PGD_STEPS} ({NORM_NAMES[norm]}), ε = {format_epsilon(epsilon)}, made for this report"
    return [(said, norm, np.asarray(result.images))]


@functools.lru_cache
def _pgd(norm: Norm, lower: float, upper: float) -> Callable:
    """PGD as :func:`bap_jax.evaluation.compiled.attack` calls it; one object for one box, so that arms share compiles."""
    threat = named_threat("pgd", norm=norm, bounds=Bounds(lower, upper), num_steps=PGD_STEPS)
    return lambda logits_fn, keys, images, labels, epsilon, attempt: threat.attack(logits_fn, keys, images, labels, epsilon)


def _answers(judged: dict[str, Any]) -> list[str]:
    """The predictions; the argmax over logits that are not finite is none."""
    said = zip(_texts(judged["prediction"]), judged["answered"], strict=True)
    return [text if answered else "none" for text, answered in said]


def _texts(numbers: Any) -> list[str]:
    return [str(int(number)) for number in numbers]
