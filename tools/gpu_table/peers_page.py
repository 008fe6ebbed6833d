"""The section about peers, made from its result file."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "gpu-peers.json"


def section() -> str:
    return str(json.loads(RESULTS.read_text())["environment"])
