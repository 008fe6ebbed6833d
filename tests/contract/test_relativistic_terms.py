"""The operator of relativistic losses takes any terms, not only those of a row, on every backend."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import backends
import pytest
import torch
from torch import Tensor

from contract.common import reduced, rows_of_term
from gankernels import _backend
from gankernels._scalar import FUNCTIONS, Term, term

F64 = torch.float64
pytestmark = pytest.mark.compiled


def expected(
    real: Tensor, fake: Tensor, real_term: Term, fake_term: Term, reduction: str
) -> Tensor:
    of_real = reduced(rows_of_term(real_term, real, fake.mean()), reduction)
    return of_real + reduced(rows_of_term(fake_term, fake, real.mean()), reduction)


def curvature(gradients: Sequence[Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A derivative of the gradients; of the leaves too, as linear terms have none."""
    total = sum((g * g).sum() + (x * x).sum() for g, x in zip(gradients, leaves, strict=True))
    return torch.autograd.grad(total, leaves)


# Each number of each term differs from its neighbours', and from what it is where nothing is said.
PAIRS = [
    (
        term(a, sign=-1.0, offset=0.3, weight=1.7, slope=0.2),
        term(b, sign=1.0, offset=-0.4, weight=0.6, slope=-0.1),
    )
    for a, b in itertools.product(FUNCTIONS, FUNCTIONS)
]


def named(terms: tuple[Term, Term]) -> str:
    return "-".join(FUNCTIONS[int(t[0])] for t in terms)


@pytest.mark.parametrize("terms", PAIRS, ids=named)
def test_any_two_terms(backend: str, terms: tuple[Term, Term]) -> None:
    for reduction in backends.in_turn(list(_backend.REDUCTIONS)):
        generator = torch.Generator().manual_seed(1)
        sizes = (7, 7) if reduction == "none" else (7, 5)
        leaves = [torch.randn(n, dtype=F64, generator=generator).requires_grad_() for n in sizes]
        weights = torch.randn(7, dtype=F64, generator=generator) if reduction == "none" else 1.0

        value = _backend.relativistic_loss(*leaves, *terms, _backend.REDUCTIONS[reduction])
        found = torch.autograd.grad((value * weights).sum(), leaves, create_graph=True)
        wanted = expected(*leaves, *terms, reduction)
        right = torch.autograd.grad((wanted * weights).sum(), leaves, create_graph=True)
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            curvature(found, leaves), curvature(right, leaves), rtol=1e-11, atol=1e-12
        )

        plain = _backend.VALUE_AND_GRAD["relativistic_loss"](
            *(x.detach() for x in leaves),
            *terms,
            _backend.REDUCTIONS[reduction],
            True,
            True,
            True,
            1.0,
        )
        of_sum = torch.autograd.grad(expected(*leaves, *terms, reduction).sum(), leaves)
        torch.testing.assert_close(plain[1:], of_sum, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)], ids=["no real logits", "no fake logits"])
@pytest.mark.parametrize("terms", PAIRS, ids=named)
def test_one_empty_batch(backend: str, terms: tuple[Term, Term], sizes: tuple[int, int]) -> None:
    """Its mean is NaN, and what it shares out among the other batch is nothing."""
    for reduction in backends.in_turn(["mean", "sum"]):
        leaves = [torch.linspace(-2, 2, n, dtype=F64).requires_grad_() for n in sizes]
        code = _backend.REDUCTIONS[reduction]
        found = torch.autograd.grad(_backend.relativistic_loss(*leaves, *terms, code), leaves)
        right = torch.autograd.grad(expected(*leaves, *terms, reduction), leaves)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize(
    "wrong", [(), (0.0,) * 4, (0.0,) * 6, (5.0, 1.0, 0.0, 1.0, 0.0), (-1.0,) * 5]
)
@pytest.mark.parametrize("which", ["real_term", "fake_term"])
def test_a_term_that_is_none_is_named(backend: str, which: str, wrong: Term) -> None:
    x = torch.zeros(3)
    terms = {"real_term": term("hinge"), "fake_term": term("hinge"), which: wrong}
    with pytest.raises(ValueError, match=f"{which} must be .function, sign, offset, weight, slope"):
        _backend.relativistic_loss(x, x, terms["real_term"], terms["fake_term"], 1)
