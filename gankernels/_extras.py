"""Packages of the ``train`` extra, imported where they are needed: losses and steps run without them."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]

PACKAGES = {"PIL": "Pillow", "sklearn": "scikit-learn"}
"""What is installed under another name than it is imported by."""


def require(module: str) -> Any:
    """Import a module of the extra.

    Raises:
        ImportError: It is not there, or does not load; the message says what to type.

    Example:
        >>> require("json").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        package = PACKAGES.get(top, top)
        raise ImportError(
            f'{package} is needed for this: pip install "gankernels[train]" ({error})'
        ) from error
