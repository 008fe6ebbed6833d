"""The README's Python blocks run, its links point at files, and its table is the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import results, tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_in_order() -> None:
    assert len(BLOCKS) >= 3
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/gallery.md",
        "docs/performance.md",
        "docs/switching.md",
    ],
)
def test_links_point_at_files(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_committed_results(page: str) -> None:
    text = (ROOT / page).read_text()
    assert tables.updated(page, text) == text


@pytest.mark.parametrize(
    "name",
    [
        *("losses", "losses_full", "losses_default_pages", "dispatch", "steps", "profile"),
        *("scaling", "dropin"),
    ],
)
def test_results_say_how_they_were_obtained(name: str) -> None:
    found = results.load(name)
    environment = found["environment"]
    wanted = {"command", "date", "commit", "processor", "threads", "torch", "python"}
    assert wanted <= set(environment)
    assert "modified" not in environment["commit"]
    assert environment["command"].startswith("python -m benchmarks.run")
    assert found["rows"]
