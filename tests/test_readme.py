"""The README's Python blocks run, its links point at files, and its table is the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import readme_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_in_order() -> None:
    assert len(BLOCKS) >= 3
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/gallery.md"])
def test_links_point_at_files(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_benchmark_table_is_that_of_the_committed_results() -> None:
    assert readme_table.updated(README) == README
    rows = json.loads(readme_table.RESULTS.read_text())["rows"]
    assert any(row["contender"] == "gankernels" for row in rows)
