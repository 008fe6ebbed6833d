"""What clang-tidy has to say of the C++ of the CPU's extension; .clang-tidy says what it is asked."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from torch.utils import cpp_extension

from tools.setup_helpers.extension import cxx_flags
from tools.setup_helpers.units import units
from tools.torture.attack import Found

ROOT = Path(__file__).parents[2]
DEFINED = ("-DTORCH_EXTENSION_NAME=_C", "-DTORCH_API_INCLUDE_EXTENSION_H")
FINDING = r"^.*(?:warning|error): .*\[.*\]$"


def program() -> str:
    """That of this environment, or the one on the path."""
    found = shutil.which("clang-tidy", path=Path(sys.executable).parent) or shutil.which(
        "clang-tidy"
    )
    if found is None:
        raise RuntimeError("clang-tidy is not installed (pip install clang-tidy)")
    return found


def findings(source: str) -> list[str]:
    """Of one translation unit, each once."""
    included = [*cpp_extension.include_paths(), sysconfig.get_path("include")]
    foreign = (word for path in included for word in ("-isystem", path))
    flags = [*cxx_flags(), *DEFINED, *foreign]
    command = [program(), "--quiet", source, "--", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(FINDING, done.stdout, re.M)
    if done.returncode and not found:
        return [(done.stderr or done.stdout).strip()[-500:]]
    return list(dict.fromkeys(found))


def run(share: float) -> Found:
    found = Found()
    sources = [p for p in (ROOT / "csrc").rglob("*.cpp") if p.parent.name != "cuda"]
    # Beside .clang-tidy, which is looked for above a file.
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        made = units(sources, Path(folder))
        for source in made[: max(1, round(share * len(made)))]:
            found.cases += 1
            found.failures += findings(source)
    return found
