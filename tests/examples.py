"""The environment of the examples, with Streamlit, React, Vue and Svelte: made when a test first wants it."""

import subprocess
from functools import cache
from pathlib import Path

from tests.processes import ROOT


@cache
def python() -> Path:
    """Its Python."""
    subprocess.run(["bash", "-euc", ". scripts/lib.sh; examples"], cwd=ROOT, check=True)
    return ROOT / ".venv-examples/bin/python"
