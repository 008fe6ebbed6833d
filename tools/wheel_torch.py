"""What cibuildwheel runs before it builds a wheel, and before it tests one: installs the torch that it is for.

TORCH names it for pip, TORCH_INDEX where pip finds it, as in the Makefile. It runs with the Python that it
installs into, where there is nothing else yet: the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import sys

DEFAULT = "torch==2.14.1"
BESIDE = ("setuptools>=77", "ninja", "numpy")  # an isolated build would have a torch of its own


def commands(environment: dict[str, str]) -> list[list[str]]:
    pip = [sys.executable, "-m", "pip", "install"]
    given = environment.get("TORCH_INDEX")
    index = ["--index-url", given] if given else []
    return [[*pip, *index, environment.get("TORCH") or DEFAULT], [*pip, *BESIDE]]


if __name__ == "__main__":
    for command in commands(dict(os.environ)):
        subprocess.run(command, check=True)
