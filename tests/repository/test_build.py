"""Building and loading: what a package without a fitting extension does, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gankernels
from gankernels import build_info

pytestmark = pytest.mark.builds

PACKAGE = Path(gankernels.__file__).parent
ROOT = Path(__file__).parents[2]

USE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import gankernels as gk
    import gankernels.modules, gankernels.testing
import json, torch
logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
loss = gk.softmax_kl(logits, torch.tensor([0.0, 0.0, 1.0]))
loss.backward()
value, grads = gk.value_and_grad(gk.softmax_kl)(logits, torch.tensor([0.0, 0.0, 1.0]))
print(json.dumps({
    "warnings": [str(w.message) for w in caught if "gankernels" in str(w.message)],
    "info": gk.build_info(),
    "loss": loss.item(),
    "gradient": logits.grad.tolist()[0],
    "fused": grads[0].tolist()[0],
}))
"""
REBUILD = "rebuild it"


def run(package: Path, code: str = USE, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter, with the package at ``package`` and none of our own settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GANKERNELS_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=package.parent,
        env={**clean, "PYTHONPATH": str(package.parent), **environment},
    )


def report(package: Path, **environment: str) -> dict:  # type: ignore[type-arg]
    result = run(package, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def assert_works(outcome: dict) -> None:  # type: ignore[type-arg]
    assert outcome["loss"] == 100
    for gradient in (outcome["gradient"], outcome["fused"]):
        assert gradient == [1.0, pytest.approx(0, abs=1e-30), -1.0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, extension and metadata included."""
    ignore = shutil.ignore_patterns("__pycache__", "training")
    return Path(shutil.copytree(PACKAGE, tmp_path / "gankernels", ignore=ignore))


def set_metadata(package: Path, **changes: object) -> None:
    path = package / "_build.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.compiled
def test_a_fitting_extension_loads_in_silence(package: Path) -> None:
    outcome = report(package)
    assert_works(outcome)
    assert outcome["warnings"] == []
    assert outcome["info"]["extension"] is True
    assert outcome["info"]["reason"] is None
    assert outcome["info"]["backends"]["cpu"] == "C++ extension"


@pytest.mark.compiled
def test_an_extension_for_another_torch_is_reported_with_both_versions(package: Path) -> None:
    set_metadata(package, torch="1.99.1+cpu")
    outcome = report(package)
    assert_works(outcome)
    (warning,) = outcome["warnings"]  # once
    assert "torch 1.99.1+cpu" in warning
    assert f"torch {torch.__version__}" in warning
    assert REBUILD in warning
    info = outcome["info"]
    assert info["extension"] is False
    assert (info["torch_built"], info["torch_running"]) == ("1.99.1+cpu", torch.__version__)
    assert info["reason"] in warning
    assert info["backends"]["cpu"] == "reference"
    assert info["cpu_capability"] is None


@pytest.mark.compiled
def test_a_patch_release_of_the_same_torch_still_loads(package: Path) -> None:
    release = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    set_metadata(package, torch=f"{release}.99+cpu")
    outcome = report(package)
    assert outcome["info"]["extension"] is True
    assert outcome["warnings"] == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: (p / "_build.json").unlink(missing_ok=True), "the extension was not built"),
        (lambda p: (p / "_build.json").write_text("{"), "build metadata _build.json is unreadable"),
        (
            lambda p: (p / "_build.json").write_text(json.dumps({"error": "did not compile: x"})),
            "did not compile: x",
        ),
    ],
    ids=["no metadata", "broken metadata", "failed build"],
)
def test_a_package_without_extension_says_so_once_and_works(
    package: Path, spoil, reason: str
) -> None:  # type: ignore[no-untyped-def]
    spoil(package)
    outcome = report(package)
    assert_works(outcome)
    (warning,) = outcome["warnings"]
    assert "gankernels runs on its PyTorch reference" in warning
    assert reason in warning
    assert outcome["info"]["extension"] is False


@pytest.mark.compiled
def test_an_extension_that_does_not_load_is_reported(package: Path) -> None:
    (library,) = package.glob("_C.*")
    library.write_bytes(b"not a library")
    outcome = report(package)
    assert_works(outcome)
    (warning,) = outcome["warnings"]
    assert "the extension does not load" in warning


def test_the_extension_can_be_required(package: Path) -> None:
    set_metadata(package, torch="1.99.1+cpu", error=None)
    result = run(package, GANKERNELS_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert "ImportError: GANKERNELS_REQUIRE_EXT=1, but" in result.stderr
    assert "1.99.1+cpu" in result.stderr
    assert torch.__version__ in result.stderr


def test_the_reference_may_be_chosen_without_a_warning(package: Path) -> None:
    outcome = report(package, GANKERNELS_BACKEND="reference")
    assert_works(outcome)
    assert outcome["warnings"] == []
    assert outcome["info"]["reason"] == "GANKERNELS_BACKEND=reference"
    assert outcome["info"]["extension"] is False


def test_an_unknown_backend_is_refused(package: Path) -> None:
    result = run(package, GANKERNELS_BACKEND="cudnn")
    assert result.returncode != 0
    choices = "('auto', 'cuda', 'triton', 'reference')"
    expected = f"GANKERNELS_BACKEND must be one of {choices}, got 'cudnn'"
    assert f"ValueError: {expected}" in result.stderr


def test_build_info_tells_what_runs_where() -> None:
    info = build_info()
    assert set(info) == {
        "extension",
        "reason",
        "torch_built",
        "torch_running",
        "compiler",
        "cuda_built",
        "debug",
        "cpu_capability",
        "threads",
        "backends",
        "reasons",
    }
    assert info["torch_running"] == torch.__version__
    assert info["threads"] == torch.get_num_threads()
    assert info["extension"] == (info["reason"] is None)
    assert set(info["backends"]) == set(info["reasons"]) == {"cpu", "cuda"}
    json.dumps(info)


# --- building ------------------------------------------------------------------------------------

SOURCES = ["setup.py", "pyproject.toml", "LICENSE", "csrc", "tools"]


@pytest.fixture
def checkout(tmp_path: Path, package: Path) -> Path:
    """The sources, with the package as a clean clone has it."""
    for name in SOURCES:
        source, copy = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
    (tmp_path / "README.md").touch()
    for built in [*package.glob("_C.*"), *package.glob("_build.json")]:
        built.unlink()
    return tmp_path


def build(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    steering = ("CXX", "CC", "FORCE_CUDA", "GANKERNELS_REQUIRE_EXT")
    clean = {k: v for k, v in os.environ.items() if k not in steering}
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        capture_output=True,
        text=True,
        check=False,
        cwd=checkout,
        env={**clean, **environment},
    )


def test_a_missing_compiler_leaves_a_package_that_works(checkout: Path) -> None:
    result = build(checkout, CXX="/nonexistent/c++")
    assert result.returncode == 0, result.stderr
    assert "compilation failed, the reference will serve" in result.stdout
    outcome = report(checkout / "gankernels")
    assert_works(outcome)
    (warning,) = outcome["warnings"]
    assert "the extension did not compile" in warning
    assert outcome["info"]["compiler"] is None


def test_a_compile_error_leaves_a_package_that_works(checkout: Path) -> None:
    for source in (checkout / "csrc").rglob("*.cpp"):
        source.write_text("#error broken on purpose\n")
    result = build(checkout)
    assert result.returncode == 0, result.stderr
    outcome = report(checkout / "gankernels")
    assert_works(outcome)
    assert "the extension did not compile" in outcome["warnings"][0]


def test_a_required_extension_fails_the_build(checkout: Path) -> None:
    result = build(checkout, CXX="/nonexistent/c++", GANKERNELS_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert not (checkout / "gankernels" / "_build.json").exists()


def test_cuda_cannot_be_forced_without_its_sources(checkout: Path) -> None:
    if list((checkout / "csrc").glob("cuda/*.cu")):
        shutil.rmtree(checkout / "csrc" / "cuda")
    result = build(checkout, FORCE_CUDA="1")
    assert result.returncode != 0
    assert "FORCE_CUDA=1, but this version of gankernels has no CUDA sources" in result.stderr


def compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            'if [ "$1" = --version ]; then echo "cc 4.8"; exit; fi\n'
            "echo '<stdin>: In file included from x:' >&2\n"
            "echo \"cc1plus: error: unrecognized option '-std=c++20'\" >&2\nexit 1",
            "cc 4.8 does not compile C++20: cc1plus: error: unrecognized option '-std=c++20'",
        ),
        (
            'case "$*" in *--version*) echo "cc 12";; *-fsyntax-only*) ;; *)\n'
            "echo 'kernel.cpp:7:1: warning: never mind'; echo 'kernel.cpp:9:2: error: out of luck'\n"
            "exit 1;; esac",
            "kernel.cpp:9:2: error: out of luck",
        ),
    ],
    ids=["no C++20", "an error in the source"],
)
def test_the_reason_is_the_compilers_own_error(
    checkout: Path, tmp_path: Path, script: str, expected: str
) -> None:
    result = build(checkout, CXX=compiler(tmp_path / "c++", script))
    assert result.returncode == 0, result.stderr
    reason = json.loads((checkout / "gankernels" / "_build.json").read_text())["error"]
    assert reason == f"the extension did not compile: {expected}"


def test_a_source_tree_without_its_extension(package: Path) -> None:
    for built in package.glob("_C*"):
        built.unlink()
    result = run(package, WITHOUT_FINDER + USE)
    assert result.returncode == 0, result.stderr
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "circular" not in warning
    assert "pip install --no-build-isolation ." in warning


# Removes the finder of an editable installation, which would find the extension in the checkout.
WITHOUT_FINDER = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""

EXTRAS = """
import sys
sys.modules.update(dict.fromkeys(BLOCKED))
import contextlib, importlib, io, pkgutil
import gankernels as gk
import gankernels.training
from gankernels.training import cli, configuration
for module in pkgutil.iter_modules(gankernels.training.__path__, "gankernels.training."):
    importlib.import_module(module.name)

def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(list(words))
        except SystemExit as stop:
            status = stop.code
    return status, err.getvalue()

assert run("info") == (0, "")
assert run("--help") == (0, "")
assert run("train", "--help") == (0, "")
assert run("train", "realness", "--show-config") == (0, "")
for words in (["train", "toy", "--steps", "1"], ["train", "--steps", "1", "--quiet"]):
    status, message = run(*words, "--out", sys.argv[1])
    assert status == 1, message
    assert message.count("\\n") == 1, message
    assert 'pip install "gankernels[train]"' in message, message
gankernels.training.one_pass_step
"""


@pytest.mark.parametrize("absent", ["PIL", "matplotlib", "tqdm"])
def test_a_run_misses_a_package_before_it_begins(absent: str, tmp_path: Path) -> None:
    code = (
        f"import sys\nsys.modules[{absent!r}] = None\n"
        "from gankernels.training.cli import main\n"
        "words = 'train toy --steps 1 --batch-size 8 --samples 4'.split()\n"
        "sys.exit(main([*words, '--out', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 1
    assert 'pip install "gankernels[train]"' in result.stderr
    assert not (tmp_path / "run").exists()


def test_without_the_extras(tmp_path: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("reads pyproject.toml with tomllib, of Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["optional-dependencies"]["train"]}  # type: ignore[index]
    imported = {"pillow": "PIL", "scikit-learn": "sklearn"}
    blocked = {imported.get(name, name) for name in names}
    assert {"tqdm", "matplotlib", "PIL", "sklearn", "torchmetrics"} <= blocked
    code = f"BLOCKED = {blocked!r}\n{EXTRAS}"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
