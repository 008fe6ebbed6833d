"""Identities that hold for every input: hypothesis looks for one that breaks them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gankernels as gk
from contract.common import call, class_settings
from gankernels.testing import Case, Operator, differentiate

# Sums of at most 24 terms of size up to 100, in float64.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}

shapes = st.tuples(st.integers(1, 5), st.integers(1, 24))
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.0, 0.1, 1.0, 10.0, 100.0])


def draw_logits(shape: tuple[int, int], seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_anchor(shape: tuple[int, ...], seed: int) -> Tensor:
    """A distribution with about half of its bins empty."""
    generator = torch.Generator().manual_seed(seed + 1)
    weights = torch.rand(shape, generator=generator, dtype=torch.float64)
    weights = weights * (weights > 0.5) + (weights == weights.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def arguments_like(operator: Operator, case: Case, shape: tuple[int, int], seed: int) -> dict:  # type: ignore[type-arg]
    like = Case(shape, empty_bins=True, options=case.options)
    return operator.draw(like, torch.float64, reduction="none", seed=seed)


@class_settings
@settings(max_examples=25)
@given(shape=shapes, seed=seeds, shift=st.floats(-1e3, 1e3))
def test_a_shift_of_all_logits_changes_nothing(
    operator: Operator, case: Case, shape: tuple[int, int], seed: int, shift: float
) -> None:
    arguments = arguments_like(operator, case, shape, seed)
    names = operator.inputs(arguments)
    moved = {**arguments, **{name: arguments[name] + shift for name in names}}
    got, expected = (differentiate(operator.functional, a, names) for a in (moved, arguments))
    torch.testing.assert_close(got, expected, **CLOSE)


@class_settings
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_the_order_of_classes_does_not_matter(
    operator: Operator, case: Case, shape: tuple[int, int], seed: int
) -> None:
    arguments = arguments_like(operator, case, shape, seed)
    names = operator.inputs(arguments)
    order = torch.randperm(shape[1], generator=torch.Generator().manual_seed(seed))
    permuted = {n: x[..., order] if isinstance(x, Tensor) else x for n, x in arguments.items()}
    value, gradients = differentiate(operator.functional, arguments, names)
    got, got_gradients = differentiate(operator.functional, permuted, names)
    torch.testing.assert_close(got, value, **CLOSE)
    for name in names:
        torch.testing.assert_close(got_gradients[name], gradients[name][:, order], **CLOSE)


@class_settings
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_rows_do_not_see_each_other(
    operator: Operator, case: Case, shape: tuple[int, int], seed: int
) -> None:
    arguments = arguments_like(operator, case, shape, seed)
    names = operator.inputs(arguments)
    together = call(operator, arguments)
    for i in range(shape[0]):
        row = {**arguments, **{name: arguments[name][i : i + 1] for name in names}}
        torch.testing.assert_close(call(operator, row), together[i : i + 1], **CLOSE)


@class_settings
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_reductions_agree(
    operator: Operator, case: Case, shape: tuple[int, int], seed: int
) -> None:
    arguments = arguments_like(operator, case, shape, seed)
    rows = call(operator, arguments)
    for reduction, expected in [("mean", rows.mean()), ("sum", rows.sum())]:
        got = call(operator, {**arguments, "reduction": reduction})
        torch.testing.assert_close(got, expected, **CLOSE)


@class_settings
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_gradients_of_a_row_sum_to_zero(
    operator: Operator, case: Case, shape: tuple[int, int], seed: int
) -> None:
    # The derivative of shift invariance.
    arguments = arguments_like(operator, case, shape, seed)
    names = operator.inputs(arguments)
    _, gradients = differentiate(operator.functional, arguments, names)
    for gradient in gradients.values():
        sums = gradient.sum(1)
        torch.testing.assert_close(sums, torch.zeros_like(sums), **CLOSE)


@settings(max_examples=100)
@given(shape=shapes, seed=seeds, scale=scales)
def test_divergences_are_not_negative(shape: tuple[int, int], seed: int, scale: float) -> None:
    z, other = draw_logits(shape, seed, scale), draw_logits(shape, seed + 2, scale)
    least = -1e-12 * (1 + scale)
    assert gk.softmax_kl(z, draw_anchor((shape[1],), seed), reduction="none").min() >= least
    assert gk.softmax_kl(z, draw_anchor(shape, seed), reduction="none").min() >= least
    assert gk.softmax_kl_logits(z, other, reduction="none").min() >= least


@settings(max_examples=100)
@given(shape=shapes, seed=seeds, scale=scales)
def test_divergence_from_oneself_is_zero(shape: tuple[int, int], seed: int, scale: float) -> None:
    z = draw_logits(shape, seed, scale)
    zero = torch.zeros(shape[0], dtype=torch.float64)
    for value in (
        gk.softmax_kl(z, z.softmax(1), reduction="none"),
        gk.softmax_kl_logits(z, z, reduction="none"),
        gk.softmax_kl_logits(z, z + 3.0, reduction="none"),
    ):
        torch.testing.assert_close(value, zero, **CLOSE)


@settings(max_examples=100)
@given(shape=shapes, seed=seeds, scale=scales)
def test_gradient_vanishes_at_equality(shape: tuple[int, int], seed: int, scale: float) -> None:
    z = draw_logits(shape, seed, scale)
    zero = torch.zeros_like(z)
    names = ("p_logits", "q_logits")
    _, gradients = differentiate(
        gk.softmax_kl_logits, {"p_logits": z, "q_logits": z.clone()}, names
    )
    for gradient in gradients.values():
        torch.testing.assert_close(gradient, zero, **CLOSE)
    _, (gradient,) = gk.value_and_grad(gk.softmax_kl)(z, z.softmax(1))
    torch.testing.assert_close(gradient, zero, **CLOSE)


@settings(max_examples=60)
@given(shape=shapes, seed=seeds, scale=scales, fakes=st.integers(1, 5))
def test_the_d_loss_is_two_divergences(
    shape: tuple[int, int], seed: int, scale: float, fakes: int
) -> None:
    real, fake = draw_logits(shape, seed, scale), draw_logits((fakes, shape[1]), seed + 2, scale)
    a1, a0 = draw_anchor((shape[1],), seed), draw_anchor((shape[1],), seed + 3)
    for reduction in ("mean", "sum"):
        torch.testing.assert_close(
            gk.realness_d_loss(real, fake, a1, a0, reduction=reduction),
            gk.softmax_kl(real, a1, reduction=reduction)
            + gk.softmax_kl(fake, a0, reduction=reduction),
            **CLOSE,
        )


@settings(max_examples=60)
@given(shape=shapes, seed=seeds, scale=scales, mass=st.sampled_from([1.0, 0.5, 2.0]))
def test_the_objectives_are_differences_of_divergences(
    shape: tuple[int, int], seed: int, scale: float, mass: float
) -> None:
    real, fake = draw_logits(shape, seed, scale), draw_logits(shape, seed + 2, scale)
    a1, a0 = draw_anchor((shape[1],), seed), mass * draw_anchor((shape[1],), seed + 3)
    first, second, third = (
        gk.realness_g_loss(real, fake, a1, a0, objective=objective, reduction="none")
        for objective in (1, 2, 3)
    )
    negative = -gk.softmax_kl(fake, a0, reduction="none")
    torch.testing.assert_close(first, negative, **CLOSE)
    between = gk.softmax_kl_logits(real, fake, reduction="none")
    torch.testing.assert_close(second, between + negative, **CLOSE)
    torch.testing.assert_close(third, gk.softmax_kl(fake, a1, reduction="none") + negative, **CLOSE)


@settings(max_examples=60)
@given(shape=shapes, seed=seeds, scale=scales)
def test_objectives_2_and_3_are_linear_in_the_fake_logits(
    shape: tuple[int, int], seed: int, scale: float
) -> None:
    real, fake = draw_logits(shape, seed, scale), draw_logits(shape, seed + 2, scale)
    a1, a0 = draw_anchor((shape[1],), seed), draw_anchor((shape[1],), seed + 3)
    for objective, slope in [(2, a0 - real.softmax(1)), (3, (a0 - a1).expand(shape))]:
        _, (_, gradient) = gk.value_and_grad(gk.realness_g_loss)(
            real, fake, a1, a0, objective=objective, reduction="sum"
        )
        torch.testing.assert_close(gradient, slope, **CLOSE)


@settings(max_examples=60)
@given(rows=st.integers(1, 9), seed=seeds, scale=scales)
def test_two_outcomes_are_the_logistic_loss_of_the_difference(
    rows: int, seed: int, scale: float
) -> None:
    real, fake = draw_logits((rows, 2), seed, scale), draw_logits((rows, 2), seed + 2, scale)
    a1, a0 = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    torch.testing.assert_close(
        gk.realness_d_loss(real, fake, a1, a0),
        gk.reference.logistic_d_loss(real[:, 1] - real[:, 0], fake[:, 1] - fake[:, 0]),
        **CLOSE,
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("classes", [1, 2, 17, 51, 64, 1025])
def test_uniform_logits_have_the_divergence_of_an_entropy(classes: int, scale: float) -> None:
    # KL(A || uniform) = log K - H(A)
    z = torch.full((2, classes), scale, dtype=torch.float64)
    anchor = draw_anchor((classes,), 5)
    expected = torch.tensor(classes, dtype=torch.float64).log() - torch.special.entr(anchor).sum()
    torch.testing.assert_close(gk.softmax_kl(z, anchor), expected, **CLOSE)
