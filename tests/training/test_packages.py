"""Every folder of the package is in what pip installs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import gankernels

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = (\[\n.*?\n\])", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    top = Path(gankernels.__file__).parent
    folders = {path.parent.relative_to(top.parent) for path in top.rglob("__init__.py")}
    assert set(ast.literal_eval(listed[1])) == {".".join(folder.parts) for folder in folders}
