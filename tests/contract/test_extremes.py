"""Extreme logits by hand-computed numbers; infinities and NaNs as log_softmax has them."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from backends import affordable, in_turn
from torch import Tensor

import gankernels as gk
from contract.common import (
    assert_same,
    bounded_settings,
    call,
    class_settings,
    dtype_name,
    every_dtype,
    independent_settings,
    target_settings,
    targets_of,
)
from gankernels import value_and_grad
from gankernels.testing import (
    Arguments,
    Case,
    Draw,
    Operator,
    compare,
    differentiate,
    in_dtype,
)

INF, NAN = math.inf, math.nan

# Gaps that each dtype can hold, up to (nearly) the largest fp16.
GAPS = [
    *((dtype, gap) for dtype in (torch.float32, torch.float64) for gap in (50.0, 100.0, 1e4, 6e4)),
    *((torch.float16, gap) for gap in (50.0, 100.0, 1e4, 6e4)),
    *((torch.bfloat16, gap) for gap in (50.0, 100.0, 9984.0, 59904.0)),
]
every_gap = pytest.mark.parametrize(
    ("dtype", "gap"), GAPS, ids=[f"{dtype_name(d)}-{gap:g}" for d, gap in GAPS]
)
FIRST, LAST = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])


def logits(rows: list[list[float]], dtype: torch.dtype) -> Tensor:
    return torch.tensor(rows, dtype=dtype, requires_grad=True)


def gradients(loss: Tensor, *inputs: Tensor) -> list[list[float]]:
    return [g[0].tolist() for g in torch.autograd.grad(loss, inputs)]


# The other bins: e^-50 = 2e-22, and times a gap e^-50 50.
TAIL = 1e-19


def small(value: float = 0.0) -> object:
    return pytest.approx(value, rel=0, abs=TAIL)


def near(values: list[float]) -> object:
    return pytest.approx(values, rel=0, abs=TAIL)


# --- all probability on the wrong bin, by hand ---------------------------------------------------
# z = (gap, 0, 0): softmax(z) = (1, e^-gap, e^-gap), log softmax(z) = (0, -gap, -gap).


@every_gap
def test_softmax_kl_of_the_wrong_bin(dtype: torch.dtype, gap: float) -> None:
    z = logits([[gap, 0.0, 0.0]], dtype)
    loss = gk.softmax_kl(z, LAST)
    assert loss.item() == gap
    assert gradients(loss, z) == [near([1.0, 0.0, -1.0])]


@every_gap
def test_softmax_kl_of_the_right_bin(dtype: torch.dtype, gap: float) -> None:
    z = logits([[gap, 0.0, 0.0]], dtype)
    loss = gk.softmax_kl(z, FIRST)
    assert loss.item() == small(2 * math.exp(-gap))
    assert gradients(loss, z) == [near([0.0, 0.0, 0.0])]


@every_gap
def test_softmax_kl_of_opposite_extremes(dtype: torch.dtype, gap: float) -> None:
    z = logits([[gap, 0.0, -gap]], dtype)  # in fp16 the difference itself would overflow
    loss = gk.softmax_kl(z, LAST)
    assert loss.item() == 2 * gap
    assert gradients(loss, z) == [near([1.0, 0.0, -1.0])]


@every_gap
def test_softmax_kl_logits_of_different_bins(dtype: torch.dtype, gap: float) -> None:
    p, q = logits([[gap, 0.0, 0.0]], dtype), logits([[0.0, 0.0, gap]], dtype)
    loss = gk.softmax_kl_logits(p, q)
    assert loss.item() == gap
    # q - p, and p (log p - log q - KL), which is 0 in the certain bin
    g_p, g_q = gradients(loss, p, q)
    assert g_q == near([-1.0, 0.0, 1.0])
    assert g_p == near([0.0, 0.0, 0.0])


@every_gap
def test_realness_d_loss_wrong_about_both(dtype: torch.dtype, gap: float) -> None:
    real, fake = logits([[gap, 0.0, 0.0]], dtype), logits([[0.0, 0.0, gap]], dtype)
    loss = gk.realness_d_loss(real, fake, LAST, FIRST)
    assert loss.item() == 2 * gap
    assert gradients(loss, real, fake) == [near([1.0, 0.0, -1.0]), near([-1.0, 0.0, 1.0])]


@every_gap
def test_realness_g_loss_objectives(dtype: torch.dtype, gap: float) -> None:
    real, fake = logits([[gap, 0.0, 0.0]], dtype), logits([[0.0, 0.0, gap]], dtype)
    middle = torch.tensor([0.0, 1.0, 0.0])
    # -KL(A0 || q)
    loss = gk.realness_g_loss(None, fake, None, FIRST, objective=1)
    assert loss.item() == -gap
    assert gradients(loss, fake) == [near([1.0, 0.0, -1.0])]
    # KL(p || q) - KL(A0 || q) = gap - gap; to the fake logits A0 - p
    loss = gk.realness_g_loss(real, fake, None, middle, objective=2)
    assert loss.item() == small()
    g_real, g_fake = gradients(loss, real, fake)
    assert g_fake == near([-1.0, 1.0, 0.0])
    assert g_real == near([0.0, 0.0, 0.0])
    # KL(A1 || q) - KL(A0 || q); to the fake logits A0 - A1
    loss = gk.realness_g_loss(None, fake, LAST, FIRST, objective=3)
    assert loss.item() == -gap
    assert gradients(loss, fake) == [[1.0, 0.0, -1.0]]


@every_gap
def test_a_half_full_anchor(dtype: torch.dtype, gap: float) -> None:
    z, target = logits([[gap, 0.0, 0.0]], dtype), torch.tensor([0.0, 0.5, 0.5])
    loss = gk.softmax_kl(z, target)
    # sum A log A - sum A log q = -log 2 + gap
    assert loss.item() == pytest.approx(gap - math.log(2), rel=torch.finfo(torch.float32).eps)
    assert gradients(loss, z) == [near([1.0, -0.5, -0.5])]


# --- where the published formulas saturate -------------------------------------------------------


def clamped_kl(p: Tensor, q: Tensor, epsilon: float = 1e-16) -> Tensor:
    """The divergence as the third article and the official repository compute it: after softmax."""
    return (p * ((p + epsilon).log() - (q + epsilon).log())).sum(1).mean()


def test_gradient_at_gap_100_is_float64s_where_the_clamped_formula_gives_0() -> None:
    z = logits([[100.0, 0.0, 0.0]], torch.float32)
    exact = z.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(gk.reference.softmax_kl(exact, LAST), exact)
    (got,) = torch.autograd.grad(gk.softmax_kl(z, LAST), z)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)
    (clamped,) = torch.autograd.grad(clamped_kl(LAST, z.softmax(1)), z)
    assert got.abs().max() == 1
    assert (
        clamped.abs().max() < 1e-26
    )  # e^-100 / epsilon: as good as 0, and 0 where that underflows
    (clamped,) = torch.autograd.grad(clamped_kl(LAST, (1.1 * z).softmax(1)), z)
    assert clamped.abs().max() == 0


@pytest.mark.parametrize("gap", [100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_terms_of_the_d_loss_keep_their_gradient(dtype: torch.dtype, gap: float) -> None:
    draw = Draw(torch.float64, seed=3)
    anchors = [draw.distribution(Case(), (1, 20), 1.0) for _ in range(2)]
    wrong = torch.zeros(1, 20, dtype=torch.float64)
    wrong[0, 7] = gap
    _, got = value_and_grad(gk.realness_d_loss)(wrong.to(dtype), wrong.to(dtype), *anchors)
    for gradient, anchor in zip(got, anchors, strict=True):
        expected = wrong.softmax(1) - anchor
        assert gradient is not None
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-6)


# --- large random logits -------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [100.0, 1e4, 6e4])
@every_dtype
@bounded_settings
def test_large_logits_are_finite_and_right(
    operator: Operator, case: Case, dtype: torch.dtype, largest: float
) -> None:
    for shape, dim in in_turn([((6, 5), 1), ((2, 20, 3), 1), ((20, 6), 0)]):
        like = Case(shape, dim=dim, options=case.options)
        for reduction in in_turn(operator.reductions_of(case)):
            arguments = operator.draw(like, dtype, reduction=reduction)
            # The cotangents of "none" go up to 3.25, and the gradient of a square with the logits.
            most = largest if operator.has_classes else min(largest, torch.finfo(dtype).max / 4)
            for name in operator.inputs(arguments):
                x = arguments[name].double()
                arguments[name] = (x / x.abs().max() * most).to(dtype)
            names = operator.inputs(arguments)
            value, found = differentiate(operator.functional, arguments, names)
            assert value.isfinite().all()
            assert all(bool(g.isfinite().all()) for g in found.values())
            compare(operator, arguments, names)


# --- infinities and NaN --------------------------------------------------------------------------

ROWS = {
    "nan": [NAN, 0.5, -1.0, 2.0],
    "nan last": [0.0, 0.5, -1.0, NAN],
    "inf": [0.0, INF, -1.0, 2.0],
    "two infs": [INF, 0.5, INF, 2.0],
    "inf and -inf": [INF, -INF, 0.0, 1.0],
    "-inf": [0.0, 0.5, -INF, 2.0],
    "only -inf": [-INF, -INF, -INF, -INF],
    "all but one -inf": [-INF, 3.0, -INF, -INF],
    "nan and inf": [NAN, INF, -INF, 0.0],
}
LAYOUTS = {"classes side by side": (1, 4), "rows side by side": (0, 4), "long": (1, 40)}


def with_row(x: Tensor, row: list[float], dim: int) -> Tensor:
    """``x`` with its second row of classes beginning with ``row``."""
    x = x.clone()
    x.select(1 - dim, 1)[: len(row)] = torch.tensor(row, dtype=x.dtype)
    return x


def assert_like_reference(
    operator: Operator, arguments: Arguments, names: tuple[str, ...], undefined: bool
) -> None:
    """``undefined``: log_softmax of the second row is NaN."""
    got, got_gradients = differentiate(operator.functional, arguments, names)
    exact, exact_gradients = differentiate(
        operator.reference, in_dtype(arguments, torch.float64), names
    )
    # infinity - infinity is NaN in the reference; a kernel that adds the anchors first has the limit
    difference = exact.isnan() & torch.tensor([False, not undefined, False])
    assert not got[difference].isfinite().any()
    exact = torch.where(difference, got.double(), exact)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5, equal_nan=True)
    for name in names:
        # A few roundings of numbers as large as the logits.
        atol = 64 * torch.finfo(arguments[name].dtype).eps
        torch.testing.assert_close(
            got_gradients[name].double(),
            exact_gradients[name],
            rtol=atol,
            atol=atol,
            equal_nan=True,
            msg=lambda m, name=name: f"gradient to {name}: {m}",
        )
    assert got[0].isfinite()  # the rows beside it are untouched
    if undefined:
        assert not got[1].isfinite(), "silently finite"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
@class_settings
def test_infinities_and_nans_are_log_softmaxs(
    operator: Operator, case: Case, row: str, layout: str
) -> None:
    dim, classes = LAYOUTS[layout]
    shape = (3, classes) if dim == 1 else (classes, 3)
    for dtype in in_turn((torch.float32, torch.float16, torch.float64)):
        for target in in_turn(targets_of(operator)):
            like = Case(shape, dim=dim, target=target, options=case.options)
            arguments = operator.draw(like, dtype, reduction="none")
            names = operator.inputs(arguments)
            for name in names:
                bad = with_row(arguments[name], ROWS[row], dim)
                undefined = bool(bad.select(1 - dim, 1).float().log_softmax(0).isnan().any())
                assert_like_reference(operator, {**arguments, name: bad}, names, undefined)


# Rows of a vector's lanes, long ones, and maps.
BESIDE = [((70, 5), 1), ((9, 40), 1), ((2, 20, 5, 8), 1)]


def one_row_in_seven(x: Tensor, dim: int | None) -> Tensor:
    """True there, in the shape of ``x``; where there is no class dimension every element is a row."""
    row = x if dim is None else x.select(dim, 0)
    chosen = (torch.arange(row.numel()) % 7 == 1).reshape(row.shape)
    return chosen if dim is None else chosen.unsqueeze(dim).expand(x.shape)


@independent_settings
def test_a_bad_row_changes_no_bit_of_others(operator: Operator, case: Case) -> None:
    """Neither of their losses nor of their gradients, though vectors and tiles hold several rows."""
    for (shape, dim), dtype, bad in in_turn(
        list(product(BESIDE, (torch.float32, torch.bfloat16), (NAN, INF, -INF)))
    ):
        like = Case(shape, dim=dim, options=case.options)
        arguments = operator.draw(like, dtype, reduction="none")
        names = operator.inputs(arguments)
        classes = arguments.get("dim")
        good = {name: ~one_row_in_seven(arguments[name], classes) for name in names}
        at = good[names[0]] if classes is None else good[names[0]].select(classes, 0)
        value, found = differentiate(operator.functional, arguments, names)
        for name in names:
            spoiled = {**arguments, name: arguments[name].masked_fill(~good[name], bad)}
            beside, gradients = differentiate(operator.functional, spoiled, names)
            assert_same([beside[at]], [value[at]])
            assert_same([gradients[n][good[n]] for n in names], [found[n][good[n]] for n in names])


@pytest.mark.parametrize("bad", [NAN, INF, -INF], ids=str)
@class_settings
def test_one_bad_row_spoils_the_mean(operator: Operator, case: Case, bad: float) -> None:
    arguments = operator.draw(case, torch.float32)
    for name in operator.inputs(arguments):
        row = [bad] * arguments[name].shape[1]
        spoiled = {**arguments, name: with_row(arguments[name], row, 1)}
        assert call(operator, spoiled).isnan()


@pytest.mark.parametrize("target", ["shared", "rows"])
@every_dtype
@target_settings
def test_an_impossible_class_under_an_empty_bin(
    operator: Operator, case: Case, dtype: torch.dtype, target: str
) -> None:
    """0 log 0 = 0: a logit of -inf costs nothing where no probability is wanted."""
    like = Case((3, 6), target=target, empty_bins=True, options=case.options)
    arguments = operator.draw(like, dtype, reduction="none")
    names = operator.inputs(arguments)
    empty = torch.zeros(6, dtype=torch.bool)
    empty[2] = True
    for name in operator.targets:
        if arguments[name] is not None:
            arguments[name][..., 2] = 0
    for name in names:
        arguments[name][:, 2] = -INF
    value, found = differentiate(operator.functional, arguments, names)
    assert value.isfinite().all()
    # The impossible class has gradient 0; without it, everything is as before.
    rest = {
        name: x[..., ~empty] if isinstance(x, Tensor) and x.shape[-1] == 6 else x
        for name, x in arguments.items()
    }
    expected, expected_gradients = differentiate(operator.functional, rest, names)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    for name in names:
        assert (found[name][:, 2] == 0).all()
        # A few roundings of numbers as large as the logits.
        atol = 64 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            found[name][:, ~empty], expected_gradients[name], rtol=atol, atol=atol
        )


@target_settings
def test_mass_on_an_impossible_class_is_infinite(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32, reduction="none")
    name = operator.inputs(arguments)[-1]
    arguments[name][1, 2] = -INF
    value = call(operator, arguments)
    expected = call(operator, arguments, operator.reference)
    torch.testing.assert_close(value[[0, 2]], expected[[0, 2]])
    assert not value[1].isfinite()
    assert not expected[1].isfinite()


@pytest.mark.parametrize("target", ["shared", "rows"])
@pytest.mark.parametrize("bad", [NAN, INF], ids=str)
@target_settings
def test_bad_targets_are_never_silently_finite(
    operator: Operator, case: Case, bad: float, target: str
) -> None:
    like = Case((3, 4), target=target, options=case.options)
    for name in operator.targets:
        arguments = operator.draw(like, torch.float32, reduction="none")
        if arguments[name] is not None:
            arguments[name][..., 2] = bad
            assert not call(operator, arguments).isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 51, 128, 1000, 5000])
@pytest.mark.parametrize("spread", [0.1, 10.0, 1000.0])
def test_a_divergence_of_nearly_equal_rows_is_hardly_negative(
    dtype: torch.dtype, classes: int, spread: float
) -> None:
    eps = torch.finfo(dtype).eps
    p = torch.rand(affordable(64, 4), classes, dtype=dtype) * spread
    reach = 1 + (p.amax(1) - p.amin(1)) + math.log(classes)
    for ulps in in_turn((0, 1, 8)):
        q = p * (1 + ulps * eps * torch.randn_like(p))
        for loss in (gk.softmax_kl_logits, gk.reference.softmax_kl_logits):
            assert (loss(p, q, reduction="none") > -8 * eps * reach).all()
