"""A loss of one's own, made of two functions of the logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gankernels as gk
from gankernels.training import FunctionLoss


def test_a_function_loss_is_the_module_with_the_same_formula() -> None:
    softplus = nn.functional.softplus
    ours = FunctionLoss(
        lambda r, f: softplus(-r).mean() + softplus(f).mean(), lambda _, f: softplus(-f).mean()
    )
    real, fake = torch.randn(2, 6, 1, dtype=torch.float64, requires_grad=True).unbind()
    for a, b in zip(
        (
            *ours.discriminator_value_and_grad(real, fake)[1],
            *ours.generator_value_and_grad(real, fake)[1][1:],
        ),
        (
            *gk.LogisticLoss().discriminator_value_and_grad(real, fake)[1],
            *gk.LogisticLoss().generator_value_and_grad(None, fake)[1][1:],
        ),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    with torch.no_grad():
        ours.discriminator_value_and_grad(real, fake)


def test_a_function_loss_that_looks_at_one_batch_has_no_gradient_at_the_other() -> None:
    loss = FunctionLoss(lambda real, _: -real.mean(), lambda _, fake: -fake.mean())
    value, (g_real, g_fake) = loss.discriminator_value_and_grad(torch.ones(4), torch.ones(2))
    assert float(value) == -1
    assert g_real.tolist() == [-0.25] * 4
    assert g_fake.tolist() == [0, 0]


def test_the_real_logits_reach_the_generators_function_where_it_uses_them() -> None:
    def generator(real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean() if real is None else (real - fake).mean()

    for uses_real, expected in ((False, -2.0), (True, 3.0)):
        loss = FunctionLoss(lambda real, fake: (fake - real).mean(), generator, uses_real)
        real, fake = torch.full((2,), 5.0, requires_grad=True), torch.full((2,), 2.0)
        value, (g_real, g_fake) = loss.generator_value_and_grad(real, fake)
        assert (float(value), g_real, g_fake.tolist()) == (expected, None, [-0.5, -0.5])


def test_the_functions_may_be_methods_of_the_same_loss() -> None:
    class Own(FunctionLoss):
        def __init__(self) -> None:
            super().__init__(self.discriminator, self.generator)

        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return (fake - real).mean()

        def generator(self, _real: Tensor | None, fake: Tensor) -> Tensor:
            return -fake.mean()

    _, (g_real, g_fake) = Own().discriminator_value_and_grad(torch.ones(2), torch.ones(2))
    assert (g_real.tolist(), g_fake.tolist()) == ([-0.5] * 2, [0.5] * 2)


def test_functions_that_make_no_loss_are_named() -> None:
    loss = FunctionLoss(lambda real, fake: fake - real, lambda _, fake: -fake)
    with pytest.raises(ValueError, match=r"discriminator must return a scalar, got shape \(3,\)"):
        loss.discriminator_value_and_grad(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"generator must return a scalar, got shape \(3,\)"):
        loss.generator_value_and_grad(None, torch.ones(3))
    away = nn.Parameter(torch.ones(()))
    loss = FunctionLoss(lambda real, fake: (fake - real).mean(), lambda _, fake: away * 2)
    with pytest.raises(ValueError, match="generator must depend on the fake logits"):
        loss.generator_value_and_grad(None, torch.ones(3))
