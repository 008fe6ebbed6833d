"""The version that a build has: the package's own, and a label that says which torch a wheel fits."""

from __future__ import annotations

import os
import re

from tools.setup_helpers import cuda
from tools.setup_helpers.environment import building_torch, declared_version, minor

LABEL = re.compile(r"[a-z0-9]+(?:\.[a-z0-9]+)*")


def torch_label() -> str:
    """``torch2.13.cpu``, ``torch2.14.cu13``: the torch that a build fits, whose C++ ABI it has.

    ``cu13`` is the build of torch, whatever was compiled against it: a wheel with CUDA kernels of its own is
    ``torch2.14.cu13.cuda``, and one that left them out with FORCE_CPU=1 must not have its name.
    """
    built = building_torch()
    if built is None:
        raise ValueError(
            "GANKERNELS_LOCAL_VERSION=auto is the label of the torch that is built against, and there is none"
        )
    import torch

    found = {"cu": torch.version.cuda, "rocm": torch.version.hip}
    kinds = [f"{kind}{version.split('.')[0]}" for kind, version in found.items() if version]
    words = [f"torch{minor(built)}", *(kinds or ["cpu"]), *(["cuda"] if cuda.builds_cuda() else [])]
    return ".".join(words)


def label() -> str | None:
    """What GANKERNELS_LOCAL_VERSION asks for, or None."""
    given = os.environ.get("GANKERNELS_LOCAL_VERSION", "")
    if given == "auto":
        return torch_label()
    if given and not LABEL.fullmatch(given):
        raise ValueError(
            "GANKERNELS_LOCAL_VERSION must be auto, or lower-case letters and digits with dots between them, "
            f"got {given!r}"
        )
    return given or None


def version() -> str:
    return "+".join(filter(None, (declared_version(), label())))
