"""Private and moving names of torch stand in one file of Python and one of C++."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON, CXX = ROOT / "gankernels" / "_torch_internals.py", ROOT / "csrc" / "compat.h"

PRIVATE_PYTHON = re.compile(
    r"\btorch(\.\w+)*\._[a-z]\w*"  # torch._C, torch.utils._pytree
    r"|\bforward_ad\._[a-z]\w*"
    r"|^\s*from torch[\w.]* import .*\b_[a-z]"
    r"|\ballow_override\b",
    re.MULTILINE,
)
PRIVATE_CXX = re.compile(
    r"\bat::_[a-z]\w*"
    r"|\b(at|c10)::(impl|detail)::\w+"
    r"|\btorch::jit::(?!Stack\b)\w+"
    r"|\bget_current_graph_task\w*"
    r"|\bFuncTorch\w+"
    r"|\bCppNode\b"
    # Those of torch/extension.h, which every extension is written with, are promised.
    r"|torch/csrc/(?!autograd/(custom_function|python_variable)\.h|Exceptions\.h|utils/pybind\.h)\S+"
)


def code_of(path: Path) -> str:
    """Without comments of C++, which may name what is not used."""
    return re.sub(r"//.*", "", path.read_text()) if path.suffix != ".py" else path.read_text()


@pytest.mark.parametrize(
    ("home", "files", "private", "at_least"),
    [
        (PYTHON, ("gankernels/**/*.py",), PRIVATE_PYTHON, 6),
        (CXX, ("csrc/**/*.h", "csrc/**/*.cpp", "csrc/**/*.cu", "csrc/**/*.cuh"), PRIVATE_CXX, 5),
    ],
    ids=["Python", "C++"],
)
def test_private_names_of_torch_stand_in_one_file(
    home: Path, files: tuple[str, ...], private: re.Pattern[str], at_least: int
) -> None:
    found = {
        str(path.relative_to(ROOT)): sorted({m[0].strip() for m in private.finditer(code_of(path))})
        for pattern in files
        for path in ROOT.glob(pattern)
    }
    at_home = found.pop(str(home.relative_to(ROOT)))
    assert {path: names for path, names in found.items() if names} == {}
    assert len(at_home) >= at_least, at_home
