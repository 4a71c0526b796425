"""Set-up of all tests: the CPU unless told otherwise, and compiled programs kept between runs."""

import gc
import os
from pathlib import Path

import pytest

_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"

# Before anything imports jax; processes that the tests start inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# as hmcvae/compiling.py: what tests run is small, and most of their time is compilation
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def key():
    import jax

    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drops the programs of a file after it: of all files they would be gigabytes a process.

    Each also holds memory maps, of which Linux allows a process 65 530: the next one is a crash.
    """
    yield
    import jax

    jax.clear_caches()
    gc.collect()


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import jax

        if jax.default_backend() == "cpu":
            pytest.skip("needs an accelerator: run with JAX_PLATFORMS=cuda or tpu")
