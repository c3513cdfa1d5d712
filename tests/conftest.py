"""Strictness for the whole suite: promotions and warnings are errors.

(Warnings: `filterwarnings` in setup.cfg.) In tests of what uses keys (methods,
learning, simulation, the laws) so is a key that is used twice. That check takes a
sixth of the time and traces programs anew.
"""

import importlib.metadata
import os
import pathlib
import shutil
import tempfile

# Many tests, and the processes they start, compile equal programs. Each worker keeps
# what it has compiled in a folder of its own, which is gone when it ends.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="programs-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

# Halves the time that compiling takes; later versions do not know the flags.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    fast = "--xla_cpu_use_fusion_emitters=false"
    fast += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {fast}".strip()

import chex
import jax
import pytest

from fedjax_mrl.models import mlp

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
jax.devices()  # one, whichever test is first: a command line makes one of every core
# Files that take longest, the longest first. Workers take whole files from the list in
# this order (Makefile), so that none of them waits long for another one at the end.
LONGEST = (
    "simulation/test_processes.py",
    "planning/test_plan.py",
    "test_laws.py",
    "test_notebooks.py",
    "cli/test_personalize.py",
    "test_values.py",
    "runs/test_reliability.py",
    "test_docs.py",
    "algorithms/test_fedmrl.py",
    "test_options.py",
    "runs/test_compare.py",
    "simulation/test_rejection.py",
    "simulation/test_together.py",
    "ops/test_conv.py",
    "simulation/test_rounds.py",
    "test_numerics.py",
    "learning/test_schedules.py",
    "cli/test_cli.py",
    "runs/test_sweeps.py",
    "cli/test_verbose.py",
    "exporting/test_commands.py",
    "test_loading.py",
    "test_paths.py",
    "algorithms/test_stochastic_models.py",
    "planning/test_tuning.py",
)
KEYS = ("tests.algorithms.", "tests.learning.", "tests.simulation.", "tests.test_laws")


def pytest_unconfigure():
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    assert all(path.exists() for path in places), "LONGEST names a file that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="module")
def _compile_fast(request):
    """Test programs are small and many: compiling them takes the time.

    A module that says OPTIMISED = True is compiled as users' programs are.
    """
    optimised = getattr(request.module, "OPTIMISED", False)
    jax.config.update("jax_enable_compilation_cache", True)  # a command had it off
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # else a worker grows to several gigabytes


@pytest.fixture(autouse=True, scope="module")
def _small_perceptrons(request):
    """Commands and examples train `mlp` by its name; its width is not their matter.

    A module that says WIDE = True, where bits of different programs or processes are
    compared, has it as users have it.
    """
    widths = mlp.mlp.__kwdefaults__
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "WIDE", False):
            patch.setitem(widths, "hidden", 16)
        yield


@pytest.fixture(autouse=True)
def _watch_keys(request):
    with jax.debug_key_reuse(request.module.__name__.startswith(KEYS)):
        yield


@pytest.fixture(autouse=True)
def _strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    chex.clear_trace_counter()


@pytest.fixture
def x64():
    """Runs one test in float64."""
    with jax.enable_x64(True):
        yield
