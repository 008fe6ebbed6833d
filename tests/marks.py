"""The marks that a ``-m`` expression names."""

from __future__ import annotations

import re

import pytest


def named(expression: str) -> set[str]:
    return set(re.findall(r"[^\W\d]\w*", expression)) - {"and", "or", "not"}


def undeclared(config: pytest.Config, expression: str) -> set[str]:
    """Those that pyproject.toml knows nothing of: they would select all or nothing in silence."""
    return named(expression) - {re.split(r"[(:]", line)[0] for line in config.getini("markers")}
