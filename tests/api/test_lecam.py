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


@pytest.mark.dynamo
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
    with pytest.raises(TypeError, match="ema_real must be a number or a tensor of one average"):
        gk.lecam_penalty(x, x, "one", 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ema_fake must be a number, got \[3\]"):
        gk.lecam_penalty(x, x, 0.0, x)


# --- lists of discriminators -----------------------------------------------------------------------


def of_three(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    shapes = ((6,), (4, 1, 3, 3), (2, 5))
    real = [draw(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    return real, [draw(*shape, seed=seed + 3 + i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("average", [False, True])
def test_the_penalty_of_a_list_is_the_sum_of_each_ones(average: bool) -> None:
    real, fake = of_three()
    ema_real, ema_fake = draw(3, seed=20), draw(3, seed=21)
    inputs = [x.requires_grad_() for x in (*real, *fake)]
    got = gk.lecam_penalty(real, fake, ema_real, ema_fake, average=average)
    each = [gk.lecam_penalty(*of) for of in zip(real, fake, ema_real, ema_fake, strict=True)]
    expected = torch.stack(each).sum() / (3 if average else 1)
    torch.testing.assert_close(got, expected, **EXACT)
    gradients = torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs)
    torch.testing.assert_close(*gradients, **EXACT)
    shared = gk.lecam_penalty(real, fake, 0.4, -0.7)
    one_by_one = [gk.lecam_penalty(r, f, 0.4, -0.7) for r, f in zip(real, fake, strict=True)]
    torch.testing.assert_close(shared, torch.stack(one_by_one).sum(), **EXACT)


def test_every_discriminator_has_averages_of_its_own() -> None:
    together = gk.LeCamPenalty(decay=0.9, discriminators=3).double()
    apart = [gk.LeCamPenalty(decay=0.9).double() for _ in range(3)]
    for seed in (0, 10, 20):
        real, fake = of_three(seed)
        each = [layer(r, f) for layer, r, f in zip(apart, real, fake, strict=True)]
        torch.testing.assert_close(together(real, fake), torch.stack(each).sum(), **EXACT)
    for name in ("ema_real", "ema_fake"):
        expected = torch.stack([getattr(layer, name) for layer in apart])
        torch.testing.assert_close(getattr(together, name), expected, **EXACT)
    assert together.updates == 3
    resumed = gk.LeCamPenalty(decay=0.9, discriminators=3).double()
    resumed.load_state_dict(together.state_dict())
    assert torch.equal(resumed(*of_three(30)), together(*of_three(30)))


def test_bad_lists_are_refused() -> None:
    x = torch.ones(3)
    both = "real_logits and fake_logits must be of the same discriminators, got "
    with pytest.raises(ValueError, match=both + "2 and 1"):
        gk.lecam_penalty([x, x], [x], 0.0, 0.0)
    with pytest.raises(ValueError, match=both + "a tensor and 1"):
        gk.lecam_penalty(x, [x], 0.0, 0.0)
    with pytest.raises(ValueError, match=r"ema_real must be a number or a tensor of 2, got \[3\]"):
        gk.lecam_penalty([x, x], [x, x], x, 0.0)
    with pytest.raises(TypeError, match=r"real_logits\[1\] must be a floating-point tensor"):
        gk.lecam_penalty([x, x.long()], [x, x], 0.0, 0.0)
    with pytest.raises(ValueError, match="real_logits must be a list of 2, got 1"):
        gk.LeCamPenalty(discriminators=2)([x], [x])
    with pytest.raises(ValueError, match="real_logits must be a tensor, got 2"):
        gk.LeCamPenalty()([x, x], [x, x])
    with pytest.raises(ValueError, match="discriminators must be at least 1 or None, got 0"):
        gk.LeCamPenalty(discriminators=0)
    with pytest.raises(TypeError, match=r"discriminators must be an integer or None, got 2\.0"):
        gk.LeCamPenalty(discriminators=2.0)  # type: ignore[arg-type]
