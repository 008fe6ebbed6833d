"""make dist: an sdist, a wheel built from it, audited, and used where there is nothing else of this repository.

The wheel requires the minor release of torch that it was built against, whose C++ ABI it has. The label of its
version names that torch, so that wheels for several differ in name: tools/setup_helpers/version.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import commit
from tools.setup_helpers.version import torch_label

ROOT = Path(__file__).resolve().parent.parent
DIST, RECORD = ROOT / "dist", ROOT / "docs" / "results" / "dist.json"
# What ends up in the wheel, and what makes it.
PACKAGED = ("csrc", "gankernels", "tools", "setup.py", "pyproject.toml", "README.md")
TOOLS = ("build", "twine", "check-wheel-contents", "auditwheel")  # the extra [dist]
TEN_STEPS = ("train", "toy", "--steps", "10", "--quiet", "--out", "run")


def run(*command: object, **options: Any) -> str:
    """Runs a command, shows what it says, and returns that."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    done = subprocess.run(
        words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )
    print(done.stdout[-4000:], flush=True)
    if done.returncode != 0:
        raise SystemExit(f"failed with status {done.returncode}: {' '.join(words)}")
    return done.stdout


def make(label: str) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it with the torch of this environment."""
    shutil.rmtree(DIST, ignore_errors=True)
    flags = {
        "GANKERNELS_PIN_TORCH": "1",
        "GANKERNELS_REQUIRE_EXT": "1",
        "GANKERNELS_LOCAL_VERSION": label,
    }
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    run(*command, env={**os.environ, **flags})
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob(f"*+{label}-*.whl")
    return sdist, wheel


def audit(sdist: Path, wheel: Path) -> str:
    """Fails where metadata or contents are not as they should be; returns the platform that the wheel fits."""
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    run(Path(sys.executable).with_name("check-wheel-contents"), wheel)
    shown = run(sys.executable, "-m", "auditwheel", "show", wheel)
    found = re.search(r'constrains the platform tag to "(\S+?)"', " ".join(shown.split()))
    return found[1] if found else "not told"


def readme_blocks() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return "import warnings\nwarnings.simplefilter('error')\n" + "\n".join(blocks)


def use(wheel: Path, torch: str, index: str | None) -> dict[str, Any]:
    """The wheel in an environment and a folder of its own: README, ten steps, and what is said about it."""
    with tempfile.TemporaryDirectory(prefix="gankernels-dist-") as folder:
        run(sys.executable, "-m", "venv", "environment", cwd=folder)
        python = Path(folder, "environment", "bin", "python")

        def inside(*words: object) -> str:
            return run(python, *words, cwd=folder)

        inside("-m", "pip", "install", "-q", *(["--index-url", index] if index else []), torch)
        inside("-m", "pip", "install", "-q", wheel)
        inside("-c", readme_blocks())  # torch and numpy alone
        inside("-m", "gankernels", "info", "--check")
        inside("-m", "pip", "install", "-q", f"{wheel}[train]")
        inside("-m", "gankernels", *TEN_STEPS)
        code = "import json, gankernels as gk; print(json.dumps(gk.build_info()))"
        info = json.loads(inside("-c", code).splitlines()[-1])
    if not info["extension"]:
        raise SystemExit(f"the wheel does not serve its extension: {info['reason']}")
    return {key: info[key] for key in ("torch_built", "torch_running", "compiler")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default="torch", help="what the wheel is tried with")
    parser.add_argument(
        "--index", help="where pip finds that torch, if not where it finds the rest"
    )
    arguments = parser.parse_args()
    run(sys.executable, "-m", "pip", "install", "-q", *TOOLS)
    label, packaged = torch_label(), commit(PACKAGED)
    sdist, wheel = make(label)
    record = {
        "command": "make dist",
        "date": datetime.date.today().isoformat(),
        "commit": packaged,
        "label": label,
        "python": sys.version.split()[0],
        "fits": audit(sdist, wheel),
        "bytes": {path.name: path.stat().st_size for path in (sdist, wheel)},
        **use(wheel, arguments.torch, arguments.index),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
