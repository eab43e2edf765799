"""A pruned run as a smaller dense one: cut, checked against what it was, measured, and written."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.atomic import json_text, write_atomic
from bap_jax.attacks import pgd
from bap_jax.checkpoint import Checkpoints, Network, check_run, open_run
from bap_jax.data import Source, evaluation_batches
from bap_jax.errors import SettingError
from bap_jax.evaluation import Check
from bap_jax.export.program import export_program, flat, from_bytes, to_bytes
from bap_jax.mathematics.masks import compression_ratio, fitted_masks, measured_sparsity
from bap_jax.plugins import import_object, is_import_path
from bap_jax.runs.datasets import split_of
from bap_jax.runs.deployed import Deployed
from bap_jax.runs.footprint import footprints, measured_on
from bap_jax.runs.options import types_of
from bap_jax.runs.parsing import Widths, parse_epsilons
from bap_jax.runs.program import FILE, NETWORK
from bap_jax.runs.recipe import model_of, network_of
from bap_jax.runs.restore import stored_network
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import parameters_of
from bap_jax.runs.trust import NOTHING, Trust, code_in, remember
from bap_jax.structure import Report, compact, sliced_apply
from bap_jax.types import Bounds, Model, Norm

RECORD = "compact.json"
ATTACK_STEPS = 20
TOLERANCE = 1e-4  # of the largest logit; networks that compute in half precision round more
HALF_TOLERANCE = 3e-2


class Compacted(NamedTuple):
    """What :func:`compact_run` came to.

    Attributes:
      out: the new folder.
      trainable: whether it can be trained further: a network with other widths, no exported program.
      checks: whether it is the same network.
      record: what compact.json holds.
    """

    out: Path
    trainable: bool
    checks: tuple[Check, ...]
    record: dict[str, Any]


def compact_run(
    run: Path,
    *,
    out: Path | None = None,
    checkpoint: str = "last",
    examples: int = 128,
    epsilon: float | None = None,
    rounds: int = 7,
    data_dir: str | None = None,
    trust: Trust = NOTHING,
    told: Callable[[str], None] | None = None,
) -> Compacted:
    """Cuts the channels of a run's network that have no say, and writes what is left as a run of its own.

    A network of the package, or one of the user's whose factory takes ``widths``, is built with the widths that are left: the
    new run is evaluated, exported and started from like any other. Of any other network the new run holds an exported program:
    it is evaluated and attacked, and refuses to train.

    Args:
      run: a run folder.
      out: the new run folder, absent or empty; by default the run's name with ``-compact`` behind it.
      checkpoint: ``last``, ``best``, ``ema`` or a step.
      examples: test images to compare both networks on.
      epsilon: of the attack on them, in the run's norm; by default the smallest that the run validated at.
      rounds: samples of each latency; 0 times nothing.
      data_dir: where prepared data sets are, if not where the run found them.
      trust: which code the run's configuration may name.
      told: what is being done, now and then.

    Returns:
      See :class:`Compacted`.

    Raises:
      SettingError: no such run or checkpoint, nothing to cut, an operation that channels cannot be followed through, or a folder
        that is occupied.
      CheckpointError: the checkpoint is damaged, or not of the run's model.
    """
    for name, value, least in (("--examples", examples, 1), ("--rounds", rounds, 0)):
        if value < least:
            raise SettingError(name, value, f"a whole number of at least {least}")
    stored = stored_network(run, checkpoint, trust)
    settings = stored.settings
    out = Path(run).resolve().with_name(Path(run).resolve().name + "-compact") if out is None else Path(out)
    check_run(out, settings.as_dict())
    source = split_of(settings, "test", data_dir, limit=None if is_import_path(settings.data) else examples)
    before = stored.on(source)
    whole = network_of(settings, source.num_classes, conv="plain")  # whose program says what a convolution pads
    network, widths, report = compact(whole, before.network, source.image_shape)
    if not any(cut.any() for cut in report.cut):
        expected = "a network with channels that are wholly zero; --pruner structured --pruner.scope coupled leaves such"
        raise SettingError("RUN", str(run), expected)
    small, program = rebuilt(settings, widths, network, source), None
    if small is None:  # what is measured is the cut network as it stands, what is compared the program that is written
        cut = Model(whole.init, sliced_apply(whole, before.params, before.model_state, report.cut))
        program = to_bytes(export_program(cut.apply, network.params, network.model_state, source.image_shape))
        path = Path(os.path.abspath(out)) / FILE
        small, after = settings.changed(model=NETWORK, **{"model.program": str(path)}), Deployed(cut, network, source.image_shape)
        network = Network(*map(flat, (network.params, fitted_masks(network.params, network.masks), network.model_state)))
        deployed = Deployed(from_bytes(program, str(path)), network, source.image_shape)
    else:
        deployed = after = Deployed(model_of(small, source.num_classes), network, source.image_shape)
    if told:
        told("comparing both networks")
    radius = _smallest(settings) if epsilon is None else epsilon
    compared = compare(before, deployed, source, examples=examples, epsilon=radius, norm=settings.norm, seed=settings.seed)
    sizes = footprints({"before": before, "after": after}, rounds=rounds, told=told)
    record = {
        "run": str(run),
        "step": stored.step,
        "trainable": program is None,
        "families": [family._asdict() for family in report.families],
        "widths": None if widths is None else dict(widths),
        **compression(before.network, report),
        **sizes,
        "measured_on": measured_on(),
        "compared": compared,
    }
    checks = checks_of(compared, settings)
    record["checks"] = [check._asdict() for check in checks]
    _write_run(small, network, out, stored.step, stored.about | {"compact_of": str(run)}, record, program)
    return Compacted(out, record["trainable"], checks, record)


def rebuilt(settings: Settings, widths: Mapping[str, int] | None, network: Network, source: Source) -> Settings | None:
    """The settings of the same network with the widths that are left, or None if it cannot be built with them."""
    if widths is None or not _takes_widths(settings):
        return None
    try:
        found = settings.changed(**{"model.widths": dict(widths)})
        images = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.float32)
        shapes = jax.eval_shape(model_of(found, source.num_classes).init, jax.random.key(0), images)
    except SettingError:
        return None
    fits = jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, (network.params, network.model_state))
    return found if fits else None


def _takes_widths(settings: Settings) -> bool:
    """Whether the network takes widths of single layers by their names."""
    if settings.knows("model"):
        annotation = types_of(type(settings.model_options)).get("widths")
    else:
        parameter = parameters_of("model", import_object("--model", settings.model)).get("widths")
        annotation = None if parameter is None else parameter.annotation
    return Widths in (annotation, *typing.get_args(annotation))


def compression(network: Network, report: Report) -> dict[str, Any]:
    """What the masks promise and what is gone: ``nominal``, prunable over kept weights; ``real``, all parameters over those that
    are left; the ``zeros`` among these, which no structure could save; and the channels whose constants were ``folded`` into
    biases.
    """
    nominal = float(compression_ratio(fitted_masks(network.params, network.masks)))
    return {
        "nominal": nominal if np.isfinite(nominal) else None,
        "real": report.compression,
        "zeros": report.parameters_after - report.nonzero_after,
        "folded": report.folded,
    }


def compare(
    before: Deployed, after: Deployed, source: Source, *, examples: int, epsilon: float, norm: Norm, seed: int = 0
) -> dict[str, Any]:
    """How alike two networks are on the first images of a data set, untouched and under PGD-20.

    Returns:
      ``logits``: the largest difference over the largest logit of the first network; ``clean``: how many images both classify
      alike; ``transferred``: how many of those that were attacked through the first; ``attacked``: how many images have the same
      verdict, fooled or not, each network attacked by itself; ``examples``, ``epsilon``, ``norm``, ``steps``; ``fooled``: of the
      first network.
    """
    batch = next(iter(evaluation_batches(source, min(examples, len(source)), limit=examples)))
    images, labels = (jnp.asarray(array)[np.asarray(batch.weight) > 0] for array in (batch.images, batch.labels))
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.arange(len(labels)))
    found = {}
    for name, net in (("before", before), ("after", after)):
        attack = jax.jit(_attack(net, epsilon, norm, source.bounds))
        found[name] = attack(net.weights, keys, images, labels)
    logits = {name: np.asarray(net(images)) for name, net in (("before", before), ("after", after))}
    attacked = {name: np.asarray(net(found["before"])).argmax(-1) for name, net in (("before", before), ("after", after))}
    fooled = {
        "before": attacked["before"] != np.asarray(labels),
        "after": np.asarray(after(found["after"])).argmax(-1) != np.asarray(labels),
    }
    return {
        "examples": len(labels),
        "epsilon": epsilon,
        "norm": norm,
        "steps": ATTACK_STEPS,
        "logits": float(np.abs(logits["after"] - logits["before"]).max() / max(np.abs(logits["before"]).max(), 1e-30)),
        "clean": int((logits["before"].argmax(-1) == logits["after"].argmax(-1)).sum()),
        "transferred": int((attacked["before"] == attacked["after"]).sum()),
        "attacked": int((fooled["before"] == fooled["after"]).sum()),
        "fooled": int(fooled["before"].sum()),
    }


def _attack(net: Deployed, epsilon: float, norm: Norm, bounds: Bounds) -> Callable:
    def attack(weights, keys, images, labels):
        logits_fn = lambda images: net.predict(weights, images)  # noqa: E731
        return pgd(logits_fn, keys, images, labels, epsilon=epsilon, num_steps=ATTACK_STEPS, norm=norm, bounds=bounds).images

    return attack


def checks_of(compared: Mapping[str, Any], settings: Settings) -> tuple[Check, ...]:
    """Whether it is the same network, in the words of an evaluation's checks."""
    half = settings.model_options.values().get("dtype") in ("bfloat16", "float16")
    limit, count = HALF_TOLERANCE if half else TOLERANCE, compared["examples"]
    differ = f"{compared['logits']:.1e} of the largest logit"
    advice = "this is a fault of bap compact: keep the network as it was, and report it"
    where = f"PGD-{compared['steps']} at {compared['norm']} {compared['epsilon']:g}"

    def check(name: str, passed: bool, value: str, otherwise: str = "failed") -> Check:
        return Check(name, "passed" if passed else otherwise, value, "" if passed else advice)  # type: ignore[arg-type]

    same = {name: f"{compared[name]} of {count} images" for name in ("clean", "transferred", "attacked")}
    return (
        check("the logits are the same", compared["logits"] <= limit, differ),
        check("the same predictions", compared["clean"] == count, same["clean"]),
        check(
            f"the same predictions on images attacked through the first ({where})",
            compared["transferred"] == count,
            same["transferred"],
        ),
        # each climbs its own gradient: rounding may turn a sign, and with it an image that is on the edge
        check(f"the same verdicts, each attacked by itself ({where})", compared["attacked"] == count, same["attacked"], "warned"),
    )


def _smallest(settings: Settings) -> float:
    """The smallest radius that a run validated at."""
    radii = [radius for radius in parse_epsilons("--validation-epsilon", settings.validation_epsilon) if radius > 0]
    return radii[0] if radii else 8 / 255


def _write_run(
    settings: Settings,
    network: Network,
    out: Path,
    step: int,
    about: Mapping[str, Any],
    record: Mapping[str, Any],
    program: bytes | None,
) -> None:
    sparsity = round(float(measured_sparsity(network.masks)), 6)
    told = settings.changed(final_sparsity=sparsity, initial_sparsity=min(settings.initial_sparsity, sparsity)).as_dict()
    with open_run(out, told) as folder, Checkpoints(folder.checkpoints) as checkpoints:
        if program is not None:
            write_atomic(Path(out) / FILE, program)
        metadata = {name: value for name, value in about.items() if name != "metric"} | {"finished": True}
        checkpoints.save(step, {"step": np.int32(step)}, network=network, metric=about.get("metric"), metadata=metadata)
        checkpoints.restore_network()  # nothing is said to be there that cannot be read back
        write_atomic(Path(out) / RECORD, json_text(record, indent=1) + "\n")
        remember(out, code_in(told).values())
