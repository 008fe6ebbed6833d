"""Gradient penalties, and the second derivative of every loss that they rest on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gankernels as gk
from gankernels import anchors, reference
from gankernels._scalar import SCALAR_LOSSES
from gankernels.penalties import (
    approximate_r1_penalty,
    gradient_penalty,
    r1_penalty,
    r2_penalty,
)

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}
K = 5
A1 = anchors.gaussian(K, 1, 1, -2, 2, dtype=F64)
A0 = anchors.gaussian(K, -1, 1, -2, 2, dtype=F64)


class Quadratic(nn.Module):
    """D(x) = x' M x / 2 per output, so that grad_x D = M x is known."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        m = torch.randn(outputs, 6, 6, dtype=F64, generator=generator)
        self.m = nn.Parameter(m + m.mT)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return 0.5 * torch.einsum("ni,kij,nj->nk", x, self.m, x)

    def gradient(self, x: Tensor) -> Tensor:
        """Of the summed outputs, by hand."""
        return x.flatten(1) @ self.m.sum(0)


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 1, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


def parameter_gradient(loss: Tensor, net: nn.Module) -> Tensor:
    return torch.autograd.grad(loss, list(net.parameters()))[0]


# --- R1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_r1_is_half_the_mean_squared_gradient(outputs: int) -> None:
    net, x = Quadratic(outputs), images().requires_grad_()
    penalty = r1_penalty(net(x), x)
    expected = 0.5 * net.gradient(x).square().sum(1).mean()
    torch.testing.assert_close(penalty, expected, **EXACT)
    got, want = parameter_gradient(penalty, net), parameter_gradient(expected, net)
    # x'Mx has the same gradient for M and its transpose.
    torch.testing.assert_close(got + got.mT, want + want.mT, **EXACT)
    assert got.abs().max() > 0.1


def test_r1_of_a_distribution_penalises_the_expected_realness() -> None:
    net, x = Quadratic(K), images().mul(0.2).requires_grad_()
    outcomes = torch.linspace(-1, 1, K, dtype=F64)
    z = net(x)
    penalty = r1_penalty(z, x, outcomes=outcomes)
    # d/dx sum q v = sum q (v - E v) dz/dx
    q = z.softmax(1)
    weight = q * (outcomes - (q @ outcomes)[:, None])
    gradient = torch.einsum("nk,kij,nj->ni", weight, net.m, x.flatten(1))
    torch.testing.assert_close(penalty, 0.5 * gradient.square().sum(1).mean(), **EXACT)
    # Shifting all logits of an image by anything leaves a distribution, and so the penalty, alone.
    shifted = r1_penalty(z + x.flatten(1).sum(1, keepdim=True) ** 2, x, outcomes=outcomes)
    torch.testing.assert_close(shifted, penalty, **EXACT)
    last = r1_penalty(net(x).view(4, 1, 1, K).movedim(1, 3), x, outcomes=outcomes, dim=2)
    torch.testing.assert_close(last, penalty, **EXACT)


def test_r1_of_half_images_is_float32() -> None:
    x = torch.full((2, 3), 300.0, dtype=torch.float16, requires_grad=True)
    penalty = r1_penalty((x * x * 0.5).sum(1), x)  # gradient x: its square overflows float16
    assert penalty.dtype == torch.float32
    assert penalty.item() == 0.5 * 3 * 300**2


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_r2_is_r1_of_the_images_it_is_given(reduction: str) -> None:
    net, x = Quadratic(), images().requires_grad_()
    per_image = 0.5 * net.gradient(x).square().sum(1)
    expected = {"mean": per_image.mean(), "sum": per_image.sum(), "none": per_image}[reduction]
    for penalty in (r1_penalty, r2_penalty):
        got = penalty(net(x), x, reduction=reduction)
        torch.testing.assert_close(got, expected, **EXACT)
    assert parameter_gradient(got.sum(), net).abs().max() > 0.1


# --- R1 without a second derivative --------------------------------------------------------------


def noise_like(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("given", [True, False])
def test_approximate_r1_is_the_squared_change_of_the_output(reduction: str, given: bool) -> None:
    net, x = Quadratic(outputs=3), images().requires_grad_()
    change = net(x) - net(x + 0.3 * noise_like(x, 7))
    per_image = change.square().sum(1)
    expected = {"mean": per_image.mean(), "sum": per_image.sum(), "none": per_image}[reduction]
    calls = []

    def discriminator(x: Tensor) -> Tensor:
        calls.append(x)
        return net(x)

    penalty = approximate_r1_penalty(
        discriminator,
        x,
        0.3,
        logits=net(x.detach()) if given else None,
        generator=torch.Generator().manual_seed(7),
        reduction=reduction,
    )
    assert len(calls) == (1 if given else 2)
    torch.testing.assert_close(penalty, expected, **EXACT)
    got, want = parameter_gradient(penalty.sum(), net), parameter_gradient(expected.sum(), net)
    torch.testing.assert_close(got, want, **EXACT)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(approximate_r1_penalty(net, x, 0.3), x)


def test_approximate_r1_approaches_r1() -> None:
    """Of a linear D the two agree for every sigma, but for the mean over the noise."""
    weight, x = torch.tensor([3.0, 4.0], dtype=F64), torch.ones(4096, 2, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    for sigma in (1e-3, 2.0):
        squares = approximate_r1_penalty(
            lambda x: x @ weight, x, sigma, generator=generator, reduction="none"
        ) / (2 * sigma**2)
        error = squares.std() / 64
        assert abs(squares.mean() - 12.5) < 4 * error < 2


# --- WGAN-GP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [1.0, 0.0, 3.0])
def test_gradient_penalty_is_taken_between_the_images(center: float) -> None:
    net, real, fake = Quadratic(), images(0), images(1)
    penalty = gradient_penalty(net, real, fake, torch.Generator().manual_seed(7), center=center)
    u = torch.rand(4, 1, 1, 1, dtype=F64, generator=torch.Generator().manual_seed(7))
    between = u * real + (1 - u) * fake
    expected = (net.gradient(between).norm(dim=1) - center).square().mean()
    torch.testing.assert_close(penalty, expected, **EXACT)
    got, want = parameter_gradient(penalty, net), parameter_gradient(expected, net)
    torch.testing.assert_close(got + got.mT, want + want.mT, **EXACT)
    assert got.abs().max() > 0.1


def test_gradient_penalty_draws_one_number_per_image() -> None:
    seen = []
    real, fake = torch.ones(64, 3, 4), torch.zeros(64, 3, 4)

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.sum((1, 2))

    gradient_penalty(discriminator, real, fake)
    u = seen[0].flatten(1)
    assert torch.equal(u.amin(1), u.amax(1))
    assert u.min() >= 0
    assert u.max() <= 1
    assert u[:, 0].unique().numel() == 64


def test_gradient_penalty_leaves_the_images_alone_and_works_without_grad_mode() -> None:
    net = Quadratic()
    real, fake = images(0).requires_grad_(), images(1).requires_grad_()
    gradient_penalty(net, real, fake).backward()
    assert real.grad is None
    assert fake.grad is None
    with torch.no_grad():
        value = gradient_penalty(net, real, fake, torch.Generator().manual_seed(7))
    assert value > 0


def test_gradient_penalty_is_finite_where_the_gradient_is_zero() -> None:
    weight = torch.zeros(3, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ weight, torch.ones(2, 3), torch.zeros(2, 3))
    assert penalty == 1
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_gradient_penalty_of_a_distribution() -> None:
    net, x = Quadratic(K), images()
    outcomes = torch.linspace(-1, 1, K, dtype=F64)
    with_x = x.clone().requires_grad_()
    expected = (net(with_x).softmax(1) @ outcomes).sum()
    (gradient,) = torch.autograd.grad(expected, with_x)
    penalty = gradient_penalty(net, x, x, outcomes=outcomes)
    torch.testing.assert_close(
        penalty, (gradient.flatten(1).norm(dim=1) - 1).square().mean(), **EXACT
    )


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradient_penalty_per_image(reduction: str) -> None:
    net, x = Quadratic(), images()
    per_image = (net.gradient(x).norm(dim=1) - 1).square()
    expected = per_image.sum() if reduction == "sum" else per_image
    got = gradient_penalty(net, x, x, reduction=reduction)
    torch.testing.assert_close(got, expected, **EXACT)


# --- penalties through the losses of the package -------------------------------------------------


def of_scalar_loss(name: str) -> Callable[[object, Tensor, Tensor], Tensor]:
    names = SCALAR_LOSSES[name].arguments
    return lambda m, r, f: getattr(m, name)(
        **{n: x for n, x in (("real_logits", r), ("fake_logits", f)) if n in names}
    )


# (functional, reference) of (D(real), D(fake)).
THROUGH: dict[str, Callable[[object, Tensor, Tensor], Tensor]] = {
    "softmax_kl": lambda m, r, f: m.softmax_kl(r, A1) + m.softmax_kl(f, A0),
    "softmax_kl_logits": lambda m, r, f: m.softmax_kl_logits(r, f),
    "realness_d_loss": lambda m, r, f: m.realness_d_loss(r, f, A1, A0),
    "realness_g_loss 1": lambda m, r, f: m.realness_g_loss(None, f, None, A0, objective=1),
    "realness_g_loss 2": lambda m, r, f: m.realness_g_loss(r, f, None, A0, objective=2),
    "realness_g_loss 3": lambda m, r, f: m.realness_g_loss(None, f, A1, A0, objective=3),
    **{name: of_scalar_loss(name) for name in SCALAR_LOSSES},
}


@pytest.mark.parametrize("name", THROUGH)
def test_a_penalty_on_the_gradient_of_a_loss_is_not_lost(name: str) -> None:
    """The squared gradient of the *loss* with respect to the images, differentiated again."""

    def penalty_gradient(module: object) -> Tensor:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, K)).double()
        real, fake = images(0).requires_grad_(), images(1).requires_grad_()
        loss = THROUGH[name](module, net(real), net(fake))
        grads = torch.autograd.grad(loss, (real, fake), create_graph=True, materialize_grads=True)
        penalty = sum(g.square().sum() for g in grads)
        return torch.cat([g.flatten() for g in torch.autograd.grad(
            penalty, list(net.parameters()), materialize_grads=True)])  # fmt: skip

    got, want = penalty_gradient(gk.functional), penalty_gradient(reference)
    torch.testing.assert_close(got, want, **EXACT)
    assert want.abs().max() > 1e-6


# --- errors --------------------------------------------------------------------------------------


def test_bad_arguments_are_refused() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="real_images must require grad before D is run on it"):
        r1_penalty(x.sum(1), x)
    x = x.requires_grad_()
    with pytest.raises(RuntimeError, match="real_logits must depend on real_images"):
        r1_penalty(torch.ones(2), x)
    with pytest.raises(ValueError, match=r"outcomes must have shape \[3\] to match real_logits"):
        r1_penalty(x * 2, x, outcomes=torch.ones(4))
    with pytest.raises(RuntimeError, match="fake_logits must depend on fake_images"):
        r2_penalty(torch.ones(2), x)
    for call in (
        lambda: r1_penalty(x.sum(1), x, reduction="max"),
        lambda: r2_penalty(x.sum(1), x, reduction="max"),
        lambda: gradient_penalty(lambda x: x.sum(1), x, x, reduction="max"),
        lambda: approximate_r1_penalty(lambda x: x.sum(1), x, 0.1, reduction="max"),
    ):
        with pytest.raises(
            ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'max'"
        ):
            call()
    for sigma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="sigma must be positive and finite, got"):
            approximate_r1_penalty(lambda x: x.sum(1), x, sigma)
    with pytest.raises(
        ValueError, match=r"logits and discriminator\(images \+ noise\) must have the same"
    ):
        approximate_r1_penalty(lambda x: x.sum(1), x, 0.1, logits=torch.ones(3))
    with pytest.raises(TypeError, match="images must be a floating-point tensor"):
        approximate_r1_penalty(lambda x: x.sum(1), torch.ones(2, 3, dtype=torch.int64), 0.1)
    with pytest.raises(ValueError, match=r"must have the same shape, got \[2, 3\] and \[1, 3\]"):
        gradient_penalty(lambda x: x, x, x[:1])
    with pytest.raises(TypeError, match="real_images must be a floating-point tensor"):
        gradient_penalty(lambda x: x, torch.ones(2, 3, dtype=torch.int64), x)
    with pytest.raises(RuntimeError, match=r"discriminator\(images\) must depend on images"):
        gradient_penalty(lambda x: torch.ones(2), x, x)
