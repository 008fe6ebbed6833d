"""The list of mutants fits the sources, covers every operator, and its last result is committed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gankernels.testing import OPERATORS

ROOT = Path(__file__).parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutants = load()
covered = {operator for mutant in mutants.MUTANTS for operator in mutant.operators}


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.name)
def test_changes_one_place(mutant) -> None:  # type: ignore[no-untyped-def]
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / "tests" / name).exists() for name in mutant.tests.files)
    assert all((ROOT / unit).exists() for unit in mutant.units)


def test_there_are_enough_in_both_languages() -> None:
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len(set(names)) == len(names) >= 20
    assert sum(mutant.file.startswith("csrc") for mutant in mutants.MUTANTS) >= 16
    assert sum(mutant.file == "gankernels/reference.py" for mutant in mutants.MUTANTS) >= 8


def test_every_operator_has_one() -> None:
    assert {operator.name for operator in OPERATORS} <= covered


@pytest.mark.compiled
def test_every_compiled_operator_has_one() -> None:
    names = torch._C._dispatch_get_all_op_names()
    compiled = {n.split("::")[1] for n in names if n.startswith("gankernels::")}
    assert "softmax_kl" in compiled
    assert {n.removesuffix("_value_and_grad") for n in compiled} <= covered


def test_the_committed_result_is_of_this_list_and_all_were_caught() -> None:
    result = json.loads(mutants.RESULT.read_text())
    outcomes = {row["name"]: row["outcome"] for row in result["mutants"]}
    assert outcomes == {mutant.name: "caught" for mutant in mutants.MUTANTS}
    assert mutants.TABLE.read_text() == mutants.table(result)
