"""Refuses an interpreter in which PyTorch cannot be imported, before it tries."""

from __future__ import annotations

import importlib

__all__ = ["check_interpreter"]


def check_interpreter() -> None:
    """Raise ImportError in a subinterpreter, where ``import torch`` waits for ever or ends the process."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # Python 3.13 on, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "gankernels needs PyTorch, which works in the main interpreter of a process alone; "
                "this is a subinterpreter: use multiprocessing or threads"
            )
        return


check_interpreter()
