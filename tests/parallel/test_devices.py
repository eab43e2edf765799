"""The environment for one CPU device per core: asked for, contradicted, and as jax understands it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bap_jax.errors import SettingError
from bap_jax.parallel import apply_environment, cores, devices, environment


def test_one_device_per_core_is_the_default():
    found = environment(current={})
    assert found["JAX_NUM_CPU_DEVICES"] == str(cores())
    assert "JAX_PLATFORMS" not in found


def test_threads_outnumber_the_devices():
    for count in (2, 3, 8, 64):
        assert int(environment(count, "cpu", current={})["NPROC"]) >= max(8, 4 * count)
    assert "NPROC" not in environment(1, "cpu", current={})


@pytest.mark.parametrize("count", [0, -1])
def test_no_device_is_refused(count):
    with pytest.raises(SettingError, match=f"devices = {count}: expected at least 1"):
        environment(count, current={})


def test_what_the_user_has_set_stays():
    assert environment(2, "cpu", current={"NPROC": "3", "JAX_PLATFORMS": "cpu"}) == {"JAX_NUM_CPU_DEVICES": "2"}
    flags = {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=4"}
    assert environment(None, "cpu", current=flags) == {"JAX_PLATFORMS": "cpu", "NPROC": "16"}
    assert environment(4, None, current=flags) == {"NPROC": "16"}


@pytest.mark.parametrize("current", [{"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, {"JAX_NUM_CPU_DEVICES": "4"}])
def test_a_contradiction_is_refused(current):
    with pytest.raises(SettingError, match="devices = 2: expected 4"):
        environment(2, "cpu", current=current)


def test_accelerators_are_left_alone():
    assert environment(None, "tpu", current={}) == {"JAX_PLATFORMS": "tpu"}
    with pytest.raises(SettingError, match="devices = 2: expected None on cuda"):
        environment(2, "cuda", current={})


def test_the_module_imports_no_jax():
    tree = ast.parse(Path(devices.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "os", "re", "sys", "collections.abc", "bap_jax.errors", "bap_jax.threads"}


@pytest.mark.parametrize("first", ["", "import jax\n"])
def test_jax_sees_the_devices_whether_imported_or_not(first):
    code = (
        "from importlib.util import module_from_spec, spec_from_file_location as spec\n"
        f"s = spec('devices', {devices.__file__!r}); m = module_from_spec(s); s.loader.exec_module(m)\n"
        "m.apply_environment(m.environment(3, 'cpu')); import jax, os\n"
        "threads = len(jax.devices()) and len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 99\n"
        "print(len(jax.devices()), jax.default_backend(), threads >= 12)"
    )
    clean = {
        name: v for name, v in os.environ.items() if name not in ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
    }
    answer = subprocess.run([sys.executable, "-c", first + code], env=clean, capture_output=True, text=True, timeout=120)
    assert answer.stdout.split() == ["3", "cpu", "True"], answer.stderr


def test_too_late_is_said(monkeypatch):
    import jax

    assert len(jax.devices()) > 1
    for name in ("JAX_NUM_CPU_DEVICES", "NPROC"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    with pytest.raises(RuntimeError, match="before backends are initialized"):
        apply_environment({"JAX_NUM_CPU_DEVICES": "3"})
