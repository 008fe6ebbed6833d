"""The loss modules: each is its functional losses, and all offer a step the same five members."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import gankernels as gk
from gankernels import anchors, reference

A1 = anchors.gaussian(4, 1, 1, -2, 2)
A0 = anchors.gaussian(4, -1, 1, -2, 2)
# float32 sums of a few dozen terms, fused against plain.
CLOSE = {"rtol": 2e-5, "atol": 1e-6}

Loss = Callable[[Tensor, Tensor], Tensor]


class Row(NamedTuple):
    module: gk.GANLoss
    discriminator: Loss
    generator: Loss
    uses_real: bool


def realness(objective: int) -> Row:
    return Row(
        gk.RealnessLoss(A1, A0, objective=objective),
        lambda r, f: reference.realness_d_loss(r, f, A1, A0),
        lambda r, f: reference.realness_g_loss(r, f, A1, A0, objective=objective),
        objective == 2,
    )


def nonsaturating(r: Tensor, f: Tensor) -> Tensor:
    return reference.nonsaturating_g_loss(f)


ROWS = {
    "RealnessLoss 1": realness(1),
    "RealnessLoss 2": realness(2),
    "RealnessLoss 3": realness(3),
    "LogisticLoss": Row(gk.LogisticLoss(), reference.logistic_d_loss, nonsaturating, False),
    "LogisticLoss smoothed": Row(
        gk.LogisticLoss(label_smoothing=0.1),
        partial(reference.logistic_d_loss, label_smoothing=0.1),
        nonsaturating,
        False,
    ),
    "LogisticLoss saturating": Row(
        gk.LogisticLoss(saturating=True),
        reference.logistic_d_loss,
        lambda r, f: reference.saturating_g_loss(f),
        False,
    ),
    "HingeLoss": Row(
        gk.HingeLoss(), reference.hinge_d_loss, lambda r, f: reference.hinge_g_loss(f), False
    ),
    "WassersteinLoss": Row(
        gk.WassersteinLoss(),
        reference.wasserstein_d_loss,
        lambda r, f: reference.wasserstein_g_loss(f),
        False,
    ),
    "LSGANLoss": Row(
        gk.LSGANLoss(), reference.lsgan_d_loss, lambda r, f: reference.lsgan_g_loss(f), False
    ),
    "RelativisticLoss": Row(
        gk.RelativisticLoss(), reference.relativistic_d_loss, reference.relativistic_g_loss, True
    ),
    "RelativisticPairingLoss": Row(
        gk.RelativisticPairingLoss(),
        reference.relativistic_pairing_d_loss,
        reference.relativistic_pairing_g_loss,
        True,
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def logits(*, real: bool = True, fake: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    r, f = (torch.randn(6, 4, generator=generator) * 2 for _ in range(2))
    return r.requires_grad_(real), f.requires_grad_(fake)


def check_gradients(
    got: tuple[Tensor | None, ...], loss: Tensor, inputs: tuple[Tensor, ...]
) -> None:
    expected = torch.autograd.grad(loss, inputs, allow_unused=True)
    for g, e in zip(got, expected, strict=True):
        assert (g is None) == (e is None)
        if g is not None:
            assert not g.requires_grad
            torch.testing.assert_close(g, e, **CLOSE)


def test_every_loss_of_the_package_has_a_row() -> None:
    modules = {
        value
        for value in vars(gk).values()
        if isinstance(value, type) and issubclass(value, gk.GANLoss) and value is not gk.GANLoss
    }
    assert {type(row.module) for row in ROWS.values()} == modules


@every_row
def test_losses_and_gradients_are_the_functional_ones(row: Row) -> None:
    r, f = logits()
    for method, function in [("discriminator", row.discriminator), ("generator", row.generator)]:
        loss, expected = getattr(row.module, method)(r, f), function(r, f)
        torch.testing.assert_close(loss, expected, **CLOSE)
        got = torch.autograd.grad(loss, (r, f), allow_unused=True)
        check_gradients(got, expected, (r, f))
        value, got = getattr(row.module, f"{method}_value_and_grad")(r, f)
        assert not value.requires_grad
        torch.testing.assert_close(value, expected, **CLOSE)
        check_gradients(got, function(r, f), (r, f))


@every_row
def test_generator_says_whether_it_uses_the_real_logits(row: Row) -> None:
    module, (r, f) = row.module, logits()
    assert module.generator_uses_real is row.uses_real
    if row.uses_real:
        with pytest.raises((TypeError, ValueError), match=r"real_logits .*None"):
            module.generator(None, f)
        with pytest.raises((TypeError, ValueError), match=r"real_logits .*None"):
            module.generator_value_and_grad(None, f)
        return
    torch.testing.assert_close(module.generator(None, f), module.generator(r, f), rtol=0, atol=0)
    value, (g_real, g_fake) = module.generator_value_and_grad(None, f)
    assert g_real is None
    check_gradients((g_fake,), row.generator(r, f), (f,))
    torch.testing.assert_close(value, row.generator(r, f), **CLOSE)


@every_row
def test_gradients_only_for_logits_that_require_them(row: Row) -> None:
    _, (g_real, g_fake) = row.module.discriminator_value_and_grad(*logits(real=False))
    assert g_real is None
    assert g_fake is not None
    _, (g_real, g_fake) = row.module.generator_value_and_grad(*logits(real=False))
    assert g_real is None
    assert g_fake is not None
    # None requires grad: all that the loss uses.
    _, grads = row.module.discriminator_value_and_grad(*logits(real=False, fake=False))
    assert all(g is not None for g in grads)
    _, (g_real, g_fake) = row.module.generator_value_and_grad(*logits(real=False, fake=False))
    assert (g_real is not None) == row.uses_real
    assert g_fake is not None


@every_row
def test_reduction_reaches_both_losses(row: Row) -> None:
    r, f = logits()
    rows = 6 if isinstance(row.module, gk.RealnessLoss) else 24
    for method in ("discriminator", "generator"):
        call = getattr(row.module, method)
        mean = call(r, f)
        for reduction, reduce in [("sum", torch.Tensor.clone), ("none", torch.Tensor.sum)]:
            row.module.reduction = reduction
            try:
                torch.testing.assert_close(reduce(call(r, f)) / rows, mean, **CLOSE)
            finally:
                row.module.reduction = "mean"


@every_row
def test_value_and_grad_of_a_bound_method(row: Row) -> None:
    r, f = logits()
    got = gk.value_and_grad(row.module.discriminator)(r, f)
    expected = row.module.discriminator_value_and_grad(r, f)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_grad_scale_multiplies_the_gradients_alone() -> None:
    loss, (r, f) = gk.RealnessLoss(A1, A0), logits()
    for method in (loss.discriminator_value_and_grad, loss.generator_value_and_grad):
        value, grads = method(r, f)
        scaled_value, scaled = method(r, f, grad_scale=8.0)
        torch.testing.assert_close(scaled_value, value)
        for g, s in zip(grads, scaled, strict=True):
            torch.testing.assert_close(s, 8 * g, **CLOSE)


@pytest.mark.dynamo
@every_row
def test_modules_compile_and_print(row: Row) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(row.module.generator, fullgraph=True, backend="aot_eager")
    r, f = logits()
    torch.testing.assert_close(compiled(r, f), row.module.generator(r, f), **CLOSE)
    assert "reduction='mean'" in repr(row.module)


# --- RealnessLoss: the anchors -------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.to(torch.float16),
        lambda m: torch.nn.Sequential(m).to(dtype=torch.bfloat16)[0],
    ],
    ids=["half", "bfloat16", "to", "inside another module"],
)
def test_anchors_are_never_rounded_to_half(convert: Callable) -> None:
    loss = convert(gk.RealnessLoss(A1, A0))
    assert torch.equal(loss.real_anchor, A1)
    assert torch.equal(loss.fake_anchor, A0)
    assert set(loss.state_dict()) == {"real_anchor", "fake_anchor"}
    r, f = logits()
    value = loss.discriminator(r.half(), f.half())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, reference.realness_d_loss(r.half(), f.half(), A1, A0))


def test_anchors_move_widen_and_are_saved() -> None:
    loss = gk.RealnessLoss(A1.half(), A0.double())
    assert loss.real_anchor.dtype == torch.float32
    assert loss.fake_anchor.dtype == torch.float64
    assert loss.double().real_anchor.dtype == torch.float64
    assert gk.RealnessLoss(A1, A0).to("meta", torch.float16).real_anchor.device.type == "meta"

    file = io.BytesIO()
    torch.save(gk.RealnessLoss(A1, A0).state_dict(), file)
    file.seek(0)
    other = gk.RealnessLoss(anchors.uniform(4), anchors.uniform(4))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.real_anchor, A1)
    assert torch.equal(other.fake_anchor, A0)


def test_anchors_are_copied() -> None:
    mine = A1.clone()
    loss = gk.RealnessLoss(mine, A0)
    mine.zero_()
    assert torch.equal(loss.real_anchor, A1)


def test_anchors_are_redrawn_in_place() -> None:
    drawn = iter([(A0, A1), (A1.half(), A0.double()), (A1, anchors.uniform(5)), (A1, 5 * [0.2])])
    loss = gk.RealnessLoss(A1, A0, draw=lambda: next(drawn))
    places = loss.real_anchor.data_ptr(), loss.fake_anchor.data_ptr()
    r, f = logits()
    for real, fake in ((A0, A1), (A1.half(), A0)):
        loss.redraw()
        assert torch.equal(loss.real_anchor, real.float())
        assert torch.equal(loss.fake_anchor, fake)
        expected = reference.realness_d_loss(r, f, real.float(), fake)
        torch.testing.assert_close(loss.discriminator(r, f), expected, **CLOSE)
    assert places == (loss.real_anchor.data_ptr(), loss.fake_anchor.data_ptr())
    shape = r"fake_anchor and fake_anchor of draw\(\) must have the same shape, got \[4\] and \[5\]"
    with pytest.raises(ValueError, match=shape):
        loss.redraw()
    with pytest.raises(TypeError, match=r"fake_anchor of draw\(\) must be a Tensor, got list"):
        loss.redraw()
    with pytest.raises(RuntimeError, match=r"redraw needs RealnessLoss\(\.\.\., draw=\.\.\.\)"):
        gk.RealnessLoss(A1, A0).redraw()


def test_realness_of_patches_and_of_per_row_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    r, f = (torch.randn(2, 3, 4, generator=generator) for _ in range(2))
    loss = gk.RealnessLoss(A1, A0, dim=-1)
    torch.testing.assert_close(
        loss.discriminator(r, f), reference.realness_d_loss(r, f, A1, A0, dim=2), **CLOSE
    )
    per_row = torch.rand(2, 3, 4, generator=generator)
    mixed = gk.RealnessLoss(per_row, A0, dim=-1, objective=3)
    torch.testing.assert_close(
        mixed.generator(None, f),
        reference.realness_g_loss(None, f, per_row, A0, objective=3, dim=2),
        **CLOSE,
    )


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: gk.RealnessLoss(A1, anchors.uniform(5)),
            ValueError,
            "real_anchor and fake_anchor must have the same shape, got [4] and [5]",
        ),
        (
            lambda: gk.RealnessLoss(A1, A0, objective=0),
            ValueError,
            "objective must be 1, 2 or 3, got 0",
        ),
        (
            lambda: gk.RealnessLoss(A1, [0.5, 0.5]),
            TypeError,
            "fake_anchor must be a Tensor, got list",
        ),
        (
            lambda: gk.RealnessLoss(A1, A0, draw=(A1, A0)),
            TypeError,
            "draw must be a function without arguments, got tuple",
        ),
        (
            lambda: gk.LogisticLoss(label_smoothing=1.5),
            ValueError,
            "label_smoothing must be in [0, 1), got 1.5",
        ),
        (
            lambda: gk.HingeLoss(reduction="avg"),
            ValueError,
            "reduction must be 'mean', 'sum' or 'none', got 'avg'",
        ),
        (
            lambda: gk.GANLoss().discriminator(A1, A0),
            TypeError,
            "GANLoss must define _discriminator_call, got no definition",
        ),
        (
            lambda: gk.GANLoss().generator(A1, A0),
            TypeError,
            "GANLoss must define _generator_call, got no definition",
        ),
    ],
)
def test_bad_arguments_are_refused(
    build: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        build()
    assert str(caught.value) == message
