"""`fedjax-mrl --help` answers at once: nothing heavy is imported to print it."""

import subprocess
import sys

CODE = """
import sys
from fedjax_mrl.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"jax", "numpy", "rich", "tqdm", "asyncio", "importlib.metadata"}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def test_help_imports_nothing_heavy():
    found = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "compare" in found.stdout
