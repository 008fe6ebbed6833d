"""What a build decides before it compiles: which torch, which requirements, where it writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

import gankernels
from tools import wheel_torch
from tools.setup_helpers import (
    backend,
    commands,
    compilers,
    cuda,
    environment,
    extension,
    units,
    version,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.builds


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with next to nothing in it, as the working directory."""
    tree = tmp_path / "tree"
    (tree / "gankernels").mkdir(parents=True)
    (tree / "gankernels" / "__init__.py").touch()
    monkeypatch.chdir(tree)
    return tree


@pytest.fixture
def torches(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """The torch that a build sees, and the one of the environment that is installed into."""
    seen: dict[str, str | None] = {"built": None, "running": None}
    monkeypatch.setattr(environment, "building_torch", lambda: seen["built"])
    for module in (environment, backend):
        monkeypatch.setattr(module, "running_torch", lambda: seen["running"])
    return seen


# --- which torch -----------------------------------------------------------------------------------


def test_the_torch_that_will_run_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = Path(environment.sysconfig.get_path("purelib", vars={"base": str(tmp_path)}))
    folder = packages / "torch-2.9.1+cpu.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1+cpu\n")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert environment.running_torch() == "2.9.1+cpu"
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "empty"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "empty"))
    assert environment.running_torch() is None


def test_a_build_against_another_torch_is_refused(
    torches: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(backend, "place_to_build")  # nothing may come so far
    torches.update(built="2.14.1+cu130", running="2.13.0+cpu")
    with pytest.raises(RuntimeError) as refused:
        backend.build_wheel("nowhere")
    for text in ("2.14.1+cu130", "2.13.0+cpu", "pip install --no-build-isolation ."):
        assert text in str(refused.value)


@pytest.mark.parametrize("running", [None, "2.14.0+cpu"])
def test_a_build_against_the_same_torch_is_not(
    torches: dict[str, str | None], running: str | None
) -> None:
    torches.update(built="2.14.1", running=running)
    environment.check_torch()


def test_an_isolated_build_asks_for_the_torch_that_is_there(
    torches: dict[str, str | None],
) -> None:
    assert backend.get_requires_for_build_wheel() == ["ninja", "torch"]
    torches["running"] = "2.13.0+cpu"
    assert backend.get_requires_for_build_editable() == ["ninja", "torch==2.13.0"]


def test_the_package_can_be_tied_to_its_torch(
    torches: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torches["built"] = "2.13.0+cpu"
    assert environment.requirements() == ["torch", "numpy"]
    monkeypatch.setenv("GANKERNELS_PIN_TORCH", "1")
    assert environment.requirements() == ["torch==2.13.*", "numpy"]


# --- which version ---------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the torch that is built against, and whether CUDA kernels are compiled."""

    def set_(built: str | None, of: str | None = None, kernels: bool = False) -> None:
        monkeypatch.setattr(version, "building_torch", lambda: built)
        monkeypatch.setattr(torch.version, "cuda", of)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(cuda, "builds_cuda", lambda: kernels)

    return set_


def test_the_version_stands_once_and_is_repeated_where_nothing_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GANKERNELS_LOCAL_VERSION", raising=False)
    assert environment.declared_version() == version.version() == gankernels.__version__
    assert f"\nversion: {gankernels.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {gankernels.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    recipe = (ROOT / "tools" / "conda" / "recipe.yaml").read_text()
    assert f'\n  version: "{gankernels.__version__}"\n' in recipe


@pytest.mark.parametrize(
    ("built", "of", "kernels", "label"),
    [
        ("2.13.0+cpu", None, False, "torch2.13.cpu"),
        ("2.14.1", "13.0", False, "torch2.14.cu13"),
        ("2.14.1+cu130", "13.0", True, "torch2.14.cu13.cuda"),
    ],
)
def test_a_label_names_the_torch_that_a_wheel_fits(
    fits: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    built: str,
    of: str | None,
    kernels: bool,
    label: str,
) -> None:
    fits(built, of, kernels)
    monkeypatch.setenv("GANKERNELS_LOCAL_VERSION", "auto")
    assert version.version() == f"{gankernels.__version__}+{label}"


def test_a_label_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANKERNELS_LOCAL_VERSION", "site.7")
    assert version.version() == f"{gankernels.__version__}+site.7"


@pytest.mark.parametrize("given", ["torch 2.13", "+cpu", "cpu.", "CPU"])
def test_what_is_no_label_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GANKERNELS_LOCAL_VERSION", given)
    with pytest.raises(ValueError, match="GANKERNELS_LOCAL_VERSION must be auto, or") as refused:
        version.version()
    assert repr(given) in str(refused.value)


def test_no_torch_has_no_label(fits: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    fits(None)
    monkeypatch.setenv("GANKERNELS_LOCAL_VERSION", "auto")
    with pytest.raises(ValueError, match="there is none"):
        version.version()


def test_metadata_have_the_label_and_sources_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("gankernels", "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = "import sys; from tools.setup_helpers import backend\nprint(getattr(backend, sys.argv[1])('..'))"
    monkeypatch.setenv("GANKERNELS_LOCAL_VERSION", "site.7")
    made = {}
    for hook in ("build_sdist", "prepare_metadata_for_build_wheel"):
        command = [sys.executable, "-c", code, hook]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made[hook] = done.stdout.splitlines()[-1]
    assert made == {
        "build_sdist": f"gankernels-{gankernels.__version__}.tar.gz",
        "prepare_metadata_for_build_wheel": f"gankernels-{gankernels.__version__}+site.7.dist-info",
    }


def test_no_folder_hides_a_module_that_builds_need(tmp_path: Path) -> None:
    """A frontend searches this tree, its backend-path, before all else, and takes a mere folder for a package."""
    code = "import sys, setuptools.build_meta; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    needed = {name.partition(".")[0] for name in done.stdout.split()}
    assert "packaging" in needed
    assert not needed & {path.name for path in ROOT.iterdir() if path.is_dir()}


# --- where it writes -------------------------------------------------------------------------------


def test_sources_that_cannot_be_written_are_built_in_a_copy(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "build").mkdir()
    monkeypatch.setattr(backend.os, "access", lambda *_: False)
    with backend.place_to_build():
        copy = Path.cwd()
        assert copy != tree
        assert (copy / "gankernels" / "__init__.py").exists()
        assert not (copy / "build").exists()
    assert Path.cwd() == tree
    assert not copy.exists()
    with pytest.raises(RuntimeError, match="cannot be written to"), backend.place_to_build(True):
        pass


def test_two_builds_of_one_tree_take_turns(tree: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (
        backend.place_to_build(),
        open(tree / "build" / "lock") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tree / "build" / "lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_modules_of_an_earlier_build_are_not_installed(tree: Path) -> None:
    build = commands.FreshBuildPy(
        Distribution({"packages": ["gankernels"], "script_name": "setup.py"})
    )
    build.build_lib = "lib"
    (tree / "lib" / "gankernels").mkdir(parents=True)
    (tree / "lib" / "gankernels" / "gone.py").touch()
    build.finalize_options()
    build.run()
    assert [p.name for p in (tree / "lib" / "gankernels").iterdir()] == ["__init__.py"]


@pytest.mark.parametrize("inplace", [False, True])
def test_the_reason_lies_beside_what_will_be_imported(
    tree: Path, monkeypatch: pytest.MonkeyPatch, inplace: bool
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    distribution = Distribution({"ext_modules": [Extension("gankernels._C", [])]})
    build = commands._build_command(build_ext)(distribution)
    build.build_lib, build.inplace = "lib", inplace
    build.finalize_options()
    build.run()
    (reason,) = tree.rglob("_build.json")
    assert reason.parent == (tree if inplace else tree / "lib") / "gankernels"
    assert "there is no C++ compiler '/nonexistent/c++'" in json.loads(reason.read_text())["error"]


def test_ninja_is_found_where_no_environment_is_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python", "ninja"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    compilers.find_ninja()
    assert shutil.which("ninja") == str(tmp_path / "ninja")
    assert os.environ["PATH"].endswith(":/nonexistent")


# --- the compiler's flags --------------------------------------------------------------------------


def test_foreign_headers_are_the_systems() -> None:
    built = types.SimpleNamespace(
        include_dirs=["/torch", "/cuda"], extra_compile_args={"cxx": ["-O3"], "nvcc": []}
    )
    extension.of_the_system(built)
    assert built.include_dirs == []
    found = ["-isystem", "/torch", "-isystem", "/cuda"]
    assert built.extra_compile_args == {"cxx": ["-O3", *found], "nvcc": found}


def test_warnings_become_errors_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANKERNELS_WERROR", raising=False)
    assert "-Werror" not in extension.cxx_flags()
    monkeypatch.setenv("GANKERNELS_WERROR", "1")
    assert "-Werror" in extension.cxx_flags()


def test_objects_of_another_compiler_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for compiler in ("GCC 12", "Clang 19"):
        monkeypatch.setattr(commands, "compiler_version", lambda compiler=compiler: compiler)
        found.add(os.fspath(commands.objects_folder()))
    assert len(found) == 2


# --- translation units -----------------------------------------------------------------------------


def test_every_source_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = {p for pattern in ("*.cpp", "*.cu") for p in Path("csrc").rglob(pattern)}
    compiled = []
    for of in map(Path, units.units(found, tmp_path)):
        included = re.findall('#include "(.+)"', of.read_text()) if of.parent == tmp_path else None
        members = [of] if included is None else [(tmp_path / file) for file in included]
        # An instruction set, or nvcc's own: never beside another file.
        assert len(members) == 1 or not any("simd" in m.parts or m.suffix == ".cu" for m in members)
        compiled += [m.resolve() for m in members]
    assert sorted(compiled) == sorted(p.resolve() for p in found)


def test_a_unit_is_written_only_where_it_changes(tmp_path: Path) -> None:
    """Or ninja would compile it anew at every build."""
    sources = [tmp_path / "one" / name for name in ("a.cpp", "b.cpp")]
    (made,) = units.units(sources, tmp_path / "units")
    assert Path(made).read_text() == '#include "../one/a.cpp"\n#include "../one/b.cpp"\n'
    os.utime(made, (1, 1))
    assert units.units(sources, tmp_path / "units") == [made]
    assert Path(made).stat().st_mtime == 1
    assert units.units(sources[:1], tmp_path / "units") == [made]
    assert Path(made).read_text() == '#include "../one/a.cpp"\n'


# --- the torch of a wheel --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, [wheel_torch.DEFAULT]),
        ({"TORCH": "", "TORCH_INDEX": ""}, [wheel_torch.DEFAULT]),
        ({"TORCH": "torch==2.13.0"}, ["torch==2.13.0"]),
        (
            {"TORCH": "torch==2.13.0", "TORCH_INDEX": "file:///wheels"},
            ["--index-url", "file:///wheels", "torch==2.13.0"],
        ),
    ],
)
def test_a_wheel_is_built_beside_the_torch_that_is_named(
    given: dict[str, str], asked: list[str]
) -> None:
    torchs, others = wheel_torch.commands(given)
    assert torchs == [sys.executable, "-m", "pip", "install", *asked]
    assert others == [sys.executable, "-m", "pip", "install", *wheel_torch.BESIDE]
    needed = re.findall(r'^requires = \["(.+)"\]', (ROOT / "pyproject.toml").read_text(), re.M)
    assert set(needed) < set(wheel_torch.BESIDE)
