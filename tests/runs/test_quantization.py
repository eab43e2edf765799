"""`bap quantize` and `--weight-bits`: runs whose network is made of small integers, evaluated as such."""

import jax
import numpy as np
import pytest
from random_runs import make_run

from bap_jax.errors import SettingError
from bap_jax.mathematics.quantize import dequantize, fake_quantize, quantize
from bap_jax.runs.evaluate import evaluate_run
from bap_jax.runs.naming import arm_of
from bap_jax.runs.plan import AttackPlan
from bap_jax.runs.quantization import quantize_run
from bap_jax.runs.restore import load
from bap_jax.runs.settings import Settings


def levels(kernel, bits):
    """The integers that a kernel of a quantised network stands for; fails if it is none."""
    small, again = jax.jit(lambda kernel: (found := quantize(kernel, bits=bits), dequantize(found)))(kernel)
    np.testing.assert_array_equal(again, kernel)
    return np.asarray(small.values)


def test_a_quantised_run_is_the_run_with_rounded_kernels(bap, tmp_path):
    bits = 3
    run = make_run(tmp_path / "x")
    code, output, error = bap("quantize", run, "--bits", bits)
    out = tmp_path / f"x-int{bits}"
    assert code == 0 and f"run: {out}" in output and f"next: bap evaluate {out} --transfer-from {run}" in output, error
    before, after = load(run), load(out)
    rounded = jax.jit(lambda params: jax.tree.map(lambda leaf: fake_quantize(leaf, bits=bits) if leaf.ndim > 1 else leaf, params))
    wanted = rounded(before.params)
    for mine, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert all(np.abs(levels(layer["kernel"], bits)).max() <= 2 ** (bits - 1) - 1 for layer in after.params.values())
    for mine, theirs in zip(jax.tree.leaves(after.masks), jax.tree.leaves(before.masks), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    path = tmp_path / "small.safetensors"
    assert bap("export", out, "--format", "int8", "--out", path)[0] == 0  # of as many bits, so that nothing is lost
    for mine, theirs in zip(jax.tree.leaves(load(path).params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_quantised_network_is_what_is_attacked_and_its_rows_say_so(tmp_path):
    run = make_run(tmp_path / "x")
    out, _ = quantize_run(run, bits=4)
    plan = AttackPlan(attack="pgd", steps=3, epsilon="0.05", limit=30, transfer_from=str(run))
    record = evaluate_run(out, plan)
    row, attacks = record["rows"][0], {row["attack"] for row in record["rows"]}
    assert row["weight_bits"] == 4 and row["arm"] == "clean, weight bits 4" and "pgd-3 from x" in attacks
    assert row["bops_dense"] * 2 == row["flops_dense"] * 4 * 32
    float_row = evaluate_run(run, AttackPlan(attack="fgsm", epsilon="0.05", limit=30, controls=False))["rows"][0]
    assert float_row["weight_bits"] == 32 and row["bytes_dense"] < 0.3 * float_row["bytes_dense"]
    assert {"input gradients", "deterministic outputs"} <= {check["name"] for check in record["checks"]}


def test_what_cannot_be_quantised_is_refused(refused, tmp_path):
    out, _ = quantize_run(make_run(tmp_path / "x"), bits=3)
    assert "floats" in refused("quantize", out) and "3 bits" in refused("quantize", out)
    for wrong in (("--weight-bits", "9"), ("--weight-bits", "8", "--ema", "0.9")):
        assert wrong[-2] in refused("train", *wrong, "--out", tmp_path / "w")


def test_bits_of_phases_are_those_of_the_last(tmp_path):
    hydra = Settings(method="hydra", phases={"finetune": {"weight_bits": 8}})
    assert [own.weight_bits for _, own in hydra.in_phases()] == [32, 32, 8] and hydra.deployed_bits() == 8
    assert "finetune weight bits 8" in arm_of(hydra)
    with pytest.raises(SettingError, match="bits"):
        quantize_run(make_run(tmp_path / "x"), bits=16)
