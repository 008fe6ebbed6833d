"""Python blocks of README and pages run, links point at files, and tables are the committed results."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
import torch

import gankernels
from benchmarks import results, tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_in_order() -> None:
    assert len(BLOCKS) >= 3
    namespace: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)


SESSIONS = [p for p in sorted((ROOT / "docs").glob("*.md")) if "```pycon" in p.read_text()]


@pytest.mark.parametrize("page", SESSIONS, ids=lambda p: p.name)
def test_sessions_of_the_pages_give_what_they_show(page: Path) -> None:
    torch._dynamo.reset()
    session = "\n".join(re.findall(r"```pycon\n(.*?)```", page.read_text(), flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    assert len(test.examples) > 3
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)


def test_the_notebook_is_its_script_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext = pytest.importorskip("jupytext")  # of the extra docs
    script = ROOT / "examples" / "mixture.py"
    notebook = json.loads((ROOT / "docs" / "mixture.ipynb").read_text())
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in out.get("data", {}) for c in code for out in c["outputs"]) == 4
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("MIXTURE_STEPS", "2")
    played = runpy.run_path(str(script))["played"]
    assert [len(said) for _, said in played.values()] == [2, 2, 2]


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(p.read_text() for p in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"autofunction:: (\w+)", pages))
    for name in re.findall(r"automodule:: (\S+)", pages):
        shown |= {name.rpartition(".")[2], *importlib.import_module(name).__all__}
    assert set(gankernels.__all__) - {"reference"} <= shown


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
    ],
)
def test_links_point_at_files(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)", prose)
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
