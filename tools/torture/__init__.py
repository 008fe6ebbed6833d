"""Attacks on what the package promises: ``python -m tools.torture`` runs them and keeps what they found."""

import sys
from pathlib import Path

# The tests' strides are the attacks', too.
sys.path.append(str(Path(__file__).parents[2] / "tests"))
