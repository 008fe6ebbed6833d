"""The list of mutants fits the sources, covers every operator, and its last result is committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gankernels import _scalar_run
from gankernels._scalar import FUNCTIONS, SCALAR_LOSSES, Term
from gankernels.testing import OPERATORS, Case, compare
from tools.mutants import report
from tools.mutants.data import MUTANTS

ROOT = Path(__file__).parents[2]


covered = {operator for mutant in MUTANTS for operator in mutant.operators}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_changes_one_place(mutant) -> None:  # type: ignore[no-untyped-def]
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / "tests" / name).exists() for name in mutant.tests.files)
    assert all((ROOT / unit).exists() for unit in mutant.units)


def test_there_are_enough_in_both_languages() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 20
    assert sum(mutant.file.startswith("csrc") for mutant in MUTANTS) >= 16
    specification = ("gankernels/reference.py", "gankernels/_divergence.py")
    assert sum(mutant.file in specification for mutant in MUTANTS) >= 8


def test_every_operator_has_one() -> None:
    """But for the scalar losses, each of which is a row that the test below changes."""
    rows = {operator.name for operator in OPERATORS} - set(SCALAR_LOSSES)
    assert {*rows, "scalar_loss", "relativistic_loss"} <= covered


def changed(term: Term) -> Iterator[Term]:
    """The term with another function, sign, offset, weight and slope, one at a time."""
    function, sign, offset, weight, slope = term
    yield ((function + 1) % len(FUNCTIONS), sign, offset, weight, slope)
    if FUNCTIONS[int(function)] != "square":  # the same square
        yield (function, -sign, offset, weight, slope)
    yield (function, sign, offset + 0.01, weight, slope)
    yield (function, sign, offset, weight * 1.01, slope)
    yield (function, sign, offset, weight, slope + 0.01)


def changed_rows() -> Iterator[tuple[str, Term]]:
    """Every row's terms, one number of one of them changed."""
    for name in SCALAR_LOSSES:
        terms = _scalar_run.terms_of(name, None, None)
        for i in range(0, len(terms), 5):
            for term in changed(terms[i : i + 5]):
                yield name, (*terms[:i], *term, *terms[i + 5 :])


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "terms"), list(changed_rows()))
def test_no_number_of_a_scalar_losss_row_changes_unnoticed(
    name: str, terms: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradients as the contract compares them, with the formulas left as they are."""
    row = next(operator for operator in OPERATORS if operator.name == name)
    arguments = row.draw(Case((33, 20)), reduction="mean")
    compare(row, arguments, row.inputs(arguments))
    monkeypatch.setitem(_scalar_run._TERMS, name, terms)
    with pytest.raises(AssertionError):
        compare(row, arguments, row.inputs(arguments))


@pytest.mark.compiled
def test_every_compiled_operator_has_one() -> None:
    names = torch._C._dispatch_get_all_op_names()
    compiled = {n.split("::")[1] for n in names if n.startswith("gankernels::")}
    assert "softmax_kl" in compiled
    assert {n.removesuffix("_value_and_grad") for n in compiled} <= covered


def test_the_committed_result_is_of_this_list_and_all_were_caught() -> None:
    result = json.loads(report.RESULT.read_text())
    outcomes = {row["name"]: row["outcome"] for row in result["mutants"]}
    assert outcomes == {mutant.name: "caught" for mutant in MUTANTS}
    assert {row["outcome"] for row in result["gpu"]["mutants"]} == {"caught"}
    assert report.TABLE.read_text() == report.table(result)


def test_the_committed_result_has_every_mutant_of_the_kernels_for_gpus() -> None:
    pytest.importorskip("triton", minversion="3.4", reason="their tests need triton")
    from gpu import test_cuda_mutants, test_triton_mutants

    rows = json.loads(report.RESULT.read_text())["gpu"]["mutants"]
    listed = {(row["kernels"], row["name"]) for row in rows}
    assert listed == {
        *(("CUDA", name) for name in test_cuda_mutants.MUTANTS),
        *(("Triton", name) for name in test_triton_mutants.MUTANTS),
    }
