"""LeCam regularisation: the formula, its averages, their state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import gankernels as gk

F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def plain(real: Tensor, fake: Tensor, ema_real: float, ema_fake: float) -> float:
    """Element by element, as the authors' formula reads."""
    above = [max(0.0, r - ema_fake) ** 2 for r in real.flatten().tolist()]
    below = [max(0.0, ema_real - f) ** 2 for f in fake.flatten().tolist()]
    return sum(above) / len(above) + sum(below) / len(below)


def test_the_penalty_is_the_formula() -> None:
    real, fake = draw(7, 1, 3), draw(5, seed=1)
    for ema_real, ema_fake in ((0.4, -0.7), (torch.tensor(0.4), torch.tensor(-0.7))):
        got = gk.lecam_penalty(real, fake, ema_real, ema_fake)
        expected = plain(real, fake, float(ema_real), float(ema_fake))
        assert got.item() == pytest.approx(expected, rel=1e-12)


def test_derivatives() -> None:
    inputs = draw(6).requires_grad_(), draw(4, seed=1).requires_grad_()
    assert gradcheck(lambda r, f: gk.lecam_penalty(r, f, 0.4, -0.7), inputs)
    assert gradgradcheck(lambda r, f: gk.lecam_penalty(r, f, 0.4, -0.7), inputs)
    r, f = inputs
    got = torch.autograd.grad(gk.lecam_penalty(r, f, 0.4, -0.7), inputs)
    torch.testing.assert_close(got[0], 2 * (r + 0.7).clamp(min=0) / 6, **EXACT)
    torch.testing.assert_close(got[1], -2 * (0.4 - f).clamp(min=0) / 4, **EXACT)


def test_half_logits_are_computed_in_float32() -> None:
    big = torch.full((3,), 300.0, dtype=torch.float16)  # its square overflows float16
    penalty = gk.lecam_penalty(big, big, 300.0, 0.0)
    assert penalty.dtype == torch.float32
    assert penalty == 300.0**2


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    return [(draw(6, seed=2 * i) + 1, draw(4, 1, seed=2 * i + 1) - 1) for i in range(count)]


def test_the_averages_take_a_batch_in_before_the_penalty() -> None:
    layer = gk.LeCamPenalty(decay=0.9).double()
    averages: list[float] = []
    for real, fake in batches(4):
        means = [real.mean().item(), fake.mean().item()]
        averages = [0.9 * a + 0.1 * m for a, m in zip(averages or means, means, strict=True)]
        got = layer(real, fake)
        assert got.item() == pytest.approx(plain(real, fake, *averages), rel=1e-12)
    assert (layer.ema_real.item(), layer.ema_fake.item()) == pytest.approx(averages, rel=1e-12)
    assert layer.updates == 4


def test_evaluation_leaves_the_averages_alone() -> None:
    layer = gk.LeCamPenalty().double()
    layer(*batches(1)[0])
    before = copy.deepcopy(layer.state_dict())
    layer.eval()(*batches(2)[1])
    assert layer.state_dict() == before


def test_the_averages_are_constants_of_the_gradient() -> None:
    layer = gk.LeCamPenalty(decay=0.0).double()
    real, fake = (x.requires_grad_() for x in batches(1)[0])
    got = torch.autograd.grad(layer(real, fake), (real, fake))
    expected = torch.autograd.grad(
        gk.lecam_penalty(real, fake, real.mean().detach(), fake.mean().detach()), (real, fake)
    )
    torch.testing.assert_close(got, expected, **EXACT)


def test_a_state_dict_goes_on_bit_for_bit() -> None:
    first, *rest = batches(4)
    layer, resumed = gk.LeCamPenalty(), gk.LeCamPenalty()
    layer(*first)
    resumed.load_state_dict(layer.state_dict())
    for batch in rest:
        assert torch.equal(layer(*batch), resumed(*batch))


def test_half_modules_keep_their_averages() -> None:
    layer = gk.LeCamPenalty(decay=0.999)
    layer(*batches(1)[0])
    before = layer.ema_real.item()
    layer.half()
    assert layer.ema_real.dtype == torch.float32
    assert layer.ema_real.item() == before
    assert layer.double().ema_fake.dtype == F64


@pytest.mark.inductor
def test_a_compiled_call_updates_the_averages_once() -> None:
    layer, eager = gk.LeCamPenalty(decay=0.5), gk.LeCamPenalty(decay=0.5)
    compiled = torch.compile(layer)
    for batch in batches(3):
        inputs = tuple(x.float().requires_grad_() for x in batch)
        got = torch.autograd.grad(compiled(*inputs), inputs)
        expected = torch.autograd.grad(eager(*inputs), inputs)
        torch.testing.assert_close(got, expected)
    assert layer.updates == 3
    torch.testing.assert_close(layer.ema_real, eager.ema_real)


def test_bad_arguments_are_refused() -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        gk.LeCamPenalty(decay=1.0)
    with pytest.raises(TypeError, match="fake_logits must be a floating-point tensor"):
        gk.lecam_penalty(x, x.long(), 0.0, 0.0)
    with pytest.raises(TypeError, match="ema_real must be a number or a 0-dim tensor, got 'one'"):
        gk.lecam_penalty(x, x, "one", 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ema_fake must be a number or a 0-dim tensor, got \[3\]"):
        gk.lecam_penalty(x, x, 0.0, x)
