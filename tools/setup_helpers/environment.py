"""What a build is told, which torch it sees, and which torch the installed package will meet."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def flag(name: str) -> bool:
    return os.environ.get(name, "0") == "1"


def minor(version: str) -> str:
    """``2.13.0+cpu`` -> ``2.13``: the C++ ABI of torch is stable within a minor release."""
    return ".".join(version.split("+")[0].split(".")[:2])


def declared_version() -> str:
    """The package's ``__version__``, read and not imported: a build has no torch for it, or another one."""
    text = (ROOT / "gankernels" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def building_torch() -> str | None:
    """The version of the torch that the extension is built against, or None."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def torch_of(prefix: str) -> str | None:
    """The version of the torch in an environment's own folder of packages."""
    roots = {"base": prefix, "platbase": prefix}
    folders = {sysconfig.get_path(name, vars=roots) for name in ("purelib", "platlib")}
    found = metadata.distributions(name="torch", path=sorted(folders))
    return next((d.version for d in found), None)


def running_torch() -> str | None:
    """The version of the torch in the environment that is installed into, where that can be told.

    pip runs an isolated build with that environment's interpreter, other tools with one of their own.
    """
    prefixes = (os.environ.get("VIRTUAL_ENV"), sys.prefix)
    return next((found for p in prefixes if p and (found := torch_of(p))), None)


def check_torch() -> None:
    """RuntimeError where what is built would be refused at import."""
    built, running = building_torch(), running_torch()
    if built and running and minor(built) != minor(running):
        raise RuntimeError(
            f"this build sees torch {built}, and the package would run under torch {running}: build it against "
            'that one with pip install "setuptools>=77" ninja && pip install --no-build-isolation .'
        )


def requirements() -> list[str]:
    """What the installed package needs; GANKERNELS_PIN_TORCH=1 ties it to the torch that it was built against."""
    built = building_torch()
    pinned = built is not None and flag("GANKERNELS_PIN_TORCH")
    return [f"torch=={minor(built)}.*" if built is not None and pinned else "torch", "numpy"]
