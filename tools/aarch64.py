"""Builds and tests the extension for AArch64 on an x86-64 machine, under QEMU, and records what came out.

    python tools/aarch64.py [--again]

Needs Debian, root, `debootstrap`, `qemu-user-static` and the kernel's binfmt_misc, which starts QEMU for programs
of the other architecture. A small Debian with its compiler and Python is unpacked under build/aarch64, and beside
it torch's own wheel for AArch64, the newest that is for a CPU alone. There the extension is built as setup.py
builds it anywhere, `gankernels info --check` is run, and a part of the contract's tests. About a quarter of an
hour on two cores. Writes docs/results/aarch64.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import commit  # noqa: E402
from tools.matrix import TESTED, counts  # noqa: E402

WORK, RECORD = ROOT / "build" / "aarch64", ROOT / "docs" / "results" / "aarch64.json"
DEBIAN, PYTHON = "bookworm", "3.11"
PACKAGES = "python3,python3-dev,libgomp1,g++"
TORCH = "torch==2.10.0"
# Named one by one: pip would read the conditions of torch's requirements as this machine's.
WHEELS = (
    *(TORCH, "numpy==2.4.6", "filelock", "typing-extensions", "sympy", "mpmath", "networkx"),
    *("jinja2", "markupsafe", "fsspec", "setuptools", "wheel", "ninja"),
    *("pytest", "pluggy", "iniconfig", "packaging", "pygments"),
    *("hypothesis", "sortedcontainers", "expecttest", "pytest-xdist", "execnet"),
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
# torch.compile is left out: its tracing takes minutes a test here.
MARKS = "not (emulated or builds or dynamo or processes)"
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/bin",
    "PYTHONPATH": "/site:/tree",
    "GANKERNELS_TEST_BACKENDS": "cpu",
    "GANKERNELS_REQUIRE_EXT": "1",
    "GANKERNELS_WERROR": "1",
}


def run(command: list[str | Path], may_fail: bool = False, **options: Any) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode and not may_fail:
        raise SystemExit(f"{command[:6]} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def inside(*command: str, jobs: int = 2, may_fail: bool = False) -> str:
    """What a command prints that runs in the other architecture's tree."""
    words = ["chroot", WORK / "root", "/bin/sh", "-c", 'cd /tree && exec "$@"', "sh", *command]
    return run(words, may_fail, env={**ENVIRONMENT, "MAX_JOBS": str(jobs)})


@contextmanager
def processes() -> Iterator[None]:
    """/proc, where a test reads how long each thread ran."""
    proc = WORK / "root" / "proc"
    run(["mount", "-t", "proc", "proc", proc])
    try:
        yield
    finally:
        run(["umount", proc])


def check_machine() -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise SystemExit("needs root, and Debian's packages debootstrap and qemu-user-static")
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        raise SystemExit(
            "the kernel starts no programs of AArch64: mount -t binfmt_misc none /proc/sys/fs/binfmt_misc, and "
            "write /usr/lib/binfmt.d/qemu-aarch64.conf into its file `register`"
        )


def unpack_debian(mirror: str) -> None:
    """The packages' files alone: nothing of them has to be configured."""
    root = WORK / "root"
    options = ["--arch=arm64", "--foreign", "--variant=minbase", f"--include={PACKAGES}"]
    run(["debootstrap", *options, DEBIAN, root, mirror])
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", package, root])
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    for name, of in (("cc", "gcc"), ("c++", "g++")):
        (root / "usr/bin" / name).symlink_to(of)


def unpack_wheels() -> None:
    folder, site = WORK / "wheels", WORK / "root" / "site"
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wanted = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, *platforms]
    run([sys.executable, "-m", "pip", "download", "--quiet", *wanted, "-d", folder, *WHEELS])
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    (ninja,) = site.glob("ninja-*.data/scripts/ninja")
    Path(shutil.copy(ninja, WORK / "root/usr/bin/ninja")).chmod(0o755)


def unpack_tree() -> None:
    """Over an older one, whose files stay where they are the same: what came of them is not built again."""
    archive, fresh, tree = WORK / "tree.tar", WORK / "tree", WORK / "root" / "tree"
    run(["git", "archive", "-o", archive, "HEAD"], cwd=ROOT)
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.unpack_archive(archive, fresh)
    for path in (path for path in fresh.rglob("*") if path.is_file()):
        target = tree / path.relative_to(fresh)
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def tests(shard: str) -> dict[str, Any]:
    folders = ("tests/contract", "tests/operators")
    words = ["pytest", "-q", "-p", "no:cacheprovider", *folders, "-m", MARKS, "--shard", shard]
    said = inside("python3", "-m", *words, may_fail=True)  # a failure is a result too
    found = counts(said)
    if "passed" not in found:
        raise SystemExit(f"not all tests ran: {said[-4000:]}")
    return {"tests": " ".join(words), **found}


def mirror_of_apt() -> str:
    said = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"])
    found = [line.split()[0] for line in said.splitlines() if line.split()[1:] == [DEBIAN]]
    return found[0] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="unpack Debian and torch anew")
    parser.add_argument("--mirror", help="of Debian; by default apt's own")
    parser.add_argument("--shard", default="0/10", help="i/n: every n-th test, which is recorded")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    check_machine()
    if arguments.again or not (WORK / "root" / "site").exists():
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        unpack_debian(arguments.mirror or mirror_of_apt())
        unpack_wheels()
    unpack_tree()
    inside("python3", "setup.py", "build_ext", "--inplace", jobs=arguments.jobs)
    info = json.loads(inside("python3", "-m", "gankernels", "info", "--check"))
    if not info["extension"]:
        raise SystemExit(f"the extension is not used: {info['reason']}")
    keys = ("torch_running", "compiler", "cpu_capability", "check")
    found: dict[str, Any] = {key: info[key] for key in keys}
    machine = "import platform as p; print(p.machine(), p.python_version())"
    found["machine"], found["python"] = inside("python3", "-c", machine).split()
    found["emulator"] = run(["qemu-aarch64-static", "--version"]).splitlines()[0]
    with processes():
        found |= tests(arguments.shard)
    found |= {"date": datetime.date.today().isoformat(), "commit": commit(TESTED)}
    found["command"] = " ".join(["python", *sys.argv])
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(found.get("failed", 0) > 0)


if __name__ == "__main__":
    main()
