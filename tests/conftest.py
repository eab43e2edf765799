"""Eight CPU devices, no silent broadcasting across ranks, and the real data where it is there."""

import os
from importlib import metadata

os.environ.setdefault("NPROC", "8")  # widens XLA's thread pool: collectives among fake devices can starve on few cores
# The suite compiles thousands of small programs and runs each for a moment. All flags but the first take five sixths off that:
# no optimisation by LLVM, one module instead of many small ones, the older emitters of fused loops (jaxlib 0.11 has them no
# more, and refuses the flag). Only rounding differs.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
) + (" --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

pytest_plugins = ("command_line",)  # tests/helpers, which every test may import from


@pytest.fixture(scope="session", autouse=True)
def remembered_trust(tmp_path_factory):
    """What tests train with code of their own is remembered in a folder of theirs, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def test_data_dir() -> str:
    """The prepared TFDS folder with real MNIST and CIFAR-10; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("BAP_TEST_DATA", "")
    if not os.path.isdir(folder):
        pytest.skip("BAP_TEST_DATA names no folder of prepared data sets")
    return folder
