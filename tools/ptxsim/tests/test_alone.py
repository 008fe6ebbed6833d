"""The tool is nobody's but its own: it imports no project, and its README's example does what it says."""

from __future__ import annotations

import ast
import pathlib
import re
import sys
from typing import Any

import pytest

TOOL = pathlib.Path(__file__).resolve().parents[1]
ALLOWED = {"numpy", "torch", "triton", "pytest", "tools", *sys.stdlib_module_names}


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
    return found


def test_it_imports_no_project() -> None:
    modules = {m for file in TOOL.rglob("*.py") for m in imported(file.read_text())}
    assert {m for m in modules if m.split(".")[0] not in ALLOWED} == set()
    assert {
        m for m in modules if m.split(".")[0] == "tools" and m.split(".")[1] != "ptxsim"
    } == set()


def test_the_readmes_example(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.findall(r"```python\n(.*?)```", (TOOL / "README.md").read_text(), re.S)[0]
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    said = re.findall(r"print\(.*\)\n *# (.*)", example)
    printed = capsys.readouterr().out.splitlines()
    for line, promise in zip(printed, said, strict=True):
        assert line.startswith(promise.removesuffix(" ...")), (line, promise)
