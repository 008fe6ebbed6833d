"""The stand-ins against the published formulas, written out plainly in float64."""

from __future__ import annotations

import math

import pytest
import torch
from test_anchors import official_projection
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

import gankernels as gk
from gankernels import compat

F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed)) * scale


def plain_kl(p: Tensor, q: Tensor, epsilon: float = 1e-16) -> Tensor:
    """mean over rows of sum_k p log((p + e) / (q + e)), classes along dim 1."""
    total = torch.zeros((), dtype=F64)
    rows = p.expand(q.shape) if p.ndim == 1 else p
    for p_row, q_row in zip(rows, q, strict=True):
        total = total + (p_row * torch.log((p_row + epsilon) / (q_row + epsilon))).sum()
    return total / len(q)


def plain_categorical(
    anchor: Tensor, feature: Tensor, skew: float, loss: compat.CategoricalLoss
) -> Tensor:
    """- mean over rows of sum_k skewed_k log(feature_k + 1e-16)."""
    rows = anchor.expand(feature.shape) if anchor.ndim == 1 else anchor
    total = torch.zeros((), dtype=F64)
    for row, feature_row in zip(rows, feature, strict=True):
        skewed = official_projection(row, skew, loss.v_min, loss.v_max)
        total = total - (skewed * torch.log(feature_row + 1e-16)).sum()
    return total / len(feature)


# --- kl_divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-16, 1e-3])
@pytest.mark.parametrize("vector", [True, False])
def test_kl_divergence_is_the_articles_formula(vector: bool, epsilon: float) -> None:
    q = draw(6, 5, scale=20).softmax(1).requires_grad_()  # some probabilities near epsilon
    p = draw(5, seed=1).softmax(0) if vector else draw(6, 5, seed=1).softmax(1)
    p.requires_grad_()
    got, expected = compat.kl_divergence(p, q, epsilon), plain_kl(p, q, epsilon)
    torch.testing.assert_close(got, expected, **EXACT)
    got_g = torch.autograd.grad(got, (p, q), create_graph=True)
    expected_g = torch.autograd.grad(expected, (p, q), create_graph=True)
    torch.testing.assert_close(got_g, expected_g, **EXACT)
    second = torch.autograd.grad(sum(g.square().sum() for g in got_g), (p, q))
    expected_2 = torch.autograd.grad(sum(g.square().sum() for g in expected_g), (p, q))
    torch.testing.assert_close(second, expected_2, rtol=1e-10, atol=1e-12)


def test_kl_divergence_at_zero_probabilities() -> None:
    p, q = torch.tensor([0.0, 1.0], dtype=F64), torch.tensor([[1.0, 0.0]], dtype=F64)
    assert compat.kl_divergence(p, q).item() == pytest.approx(math.log(1e16))
    assert compat.kl_divergence(p, q, epsilon=0).isnan()


def test_kl_divergence_reads_classes_along_dim_one() -> None:
    p, q = draw(5).softmax(0), draw(3, 5, 2, 2, seed=1).softmax(1)
    flat = q.movedim(1, -1).reshape(-1, 5)
    torch.testing.assert_close(compat.kl_divergence(p, q), plain_kl(p, flat), **EXACT)


def test_kl_divergence_of_half_inputs_is_finite() -> None:
    p = torch.tensor([0.0, 1.0], dtype=torch.float16)
    q = torch.tensor([[1.0, 0.0]], dtype=torch.float16)
    got = compat.kl_divergence(p, q)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(math.log(1e16), rel=1e-6)
    assert compat.kl_divergence(p.double(), q.float()).dtype == F64  # an anchor from numpy


def test_kl_divergence_is_softmax_kl_without_epsilon() -> None:
    logits, p = draw(6, 5), draw(5, seed=1).softmax(0)
    torch.testing.assert_close(
        compat.kl_divergence(p, logits.softmax(1), epsilon=0), gk.softmax_kl(logits, p), **EXACT
    )


@pytest.mark.parametrize("shape", [(6,), (5, 6), (6, 1)])
def test_kl_divergence_broadcasts_nothing_silently(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"p must have shape \[5\] or \[6, 5\] to match q, got"):
        compat.kl_divergence(torch.ones(shape), torch.ones(6, 5))


# --- CategoricalLoss -----------------------------------------------------------------------------

# Whole atoms, fractions, both ends clamped, and all of the mass on one end.
SKEWS = [0.0, 1.0, -1.0, 0.3, -2.7, 8.0, -8.0, 25.0]


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize(("atoms", "v_max", "v_min"), [(21, 10, -10), (5, 1, -1), (2, 3, 1)])
def test_categorical_loss_is_the_official_formula(
    atoms: int, v_max: float, v_min: float, skew: float
) -> None:
    loss = compat.CategoricalLoss(atoms=atoms, v_max=v_max, v_min=v_min)
    feature = draw(6, atoms, scale=10).softmax(1).requires_grad_()
    for anchor in (draw(6, atoms, seed=1).softmax(1), draw(atoms, seed=2).softmax(0)):
        anchor.requires_grad_()
        got = loss(anchor, feature, skewness=skew)
        expected = plain_categorical(anchor, feature, skew, loss)
        torch.testing.assert_close(got, expected, **EXACT)
        torch.testing.assert_close(
            torch.autograd.grad(got, (anchor, feature)),
            torch.autograd.grad(expected, (anchor, feature)),
            **EXACT,
        )


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("learnt_anchor", [False, True])
def test_from_logits_is_the_formula_without_epsilon(skew: float, learnt_anchor: bool) -> None:
    loss = compat.CategoricalLoss(atoms=21)
    logits = draw(6, 21).requires_grad_()
    anchor = draw(6, 21, seed=1).softmax(1).requires_grad_(learnt_anchor)
    inputs = (logits, anchor) if learnt_anchor else (logits,)
    got = loss.from_logits(anchor, logits, skew)
    skewed = torch.stack([official_projection(row, skew, -10, 10) for row in anchor])
    expected = -(skewed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(got, expected, **EXACT)
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), **EXACT
    )
    # The official formula agrees where no probability is near its epsilon.
    torch.testing.assert_close(loss(anchor, logits.softmax(1), skew), got, rtol=1e-9, atol=0)


def test_from_logits_keeps_its_gradient_where_the_official_one_is_gone() -> None:
    loss, anchor = compat.CategoricalLoss(atoms=2), torch.tensor([0.0, 1.0])
    logits = torch.tensor([[100.0, 0.0]], requires_grad=True)
    (official,) = torch.autograd.grad(loss(anchor, logits.softmax(1)), logits)
    (exact,) = torch.autograd.grad(loss.from_logits(anchor, logits), logits)
    assert official.abs().max() < 1e-20
    torch.testing.assert_close(exact, torch.tensor([[1.0, -1.0]]))
    impossible = torch.tensor([[-math.inf, 0.0]])
    for learnt in (anchor, anchor.clone().requires_grad_()):
        assert loss.from_logits(learnt, impossible) == 0


def test_derivatives_of_the_stand_ins() -> None:
    loss = compat.CategoricalLoss(atoms=5, v_max=1, v_min=-1)
    anchor, logits = draw(3, 5).softmax(1), draw(3, 5, seed=1)
    inputs = (anchor.requires_grad_(), logits.requires_grad_())
    for function in (
        lambda a, z: loss(a, z.softmax(1), 0.3),
        lambda a, z: loss.from_logits(a, z, 0.3),
        lambda a, z: compat.kl_divergence(a, z.softmax(1)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_the_skew_map_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    plain = compat.anchors.skew_matrix
    monkeypatch.setattr(
        compat.anchors, "skew_matrix", lambda *a, **k: built.append(a) or plain(*a, **k)
    )
    compat._cached_skew_matrix.cache_clear()
    loss = compat.CategoricalLoss(atoms=7)
    built.clear()  # the constructor checks its arguments with it
    anchor, feature = torch.full((7,), 1 / 7), torch.full((4, 7), 1 / 7)
    for _ in range(3):
        loss(anchor, feature, skewness=1.0)
        loss.from_logits(anchor, feature, skewness=1.0)
    assert len(built) == 1
    loss(anchor, feature, skewness=-1.0)
    loss(anchor, feature.double(), skewness=1.0)
    assert len(built) == 3


def test_the_cache_holds_only_tensors_that_can_be_used_anywhere() -> None:
    compat._cached_skew_matrix.cache_clear()
    loss = compat.CategoricalLoss(atoms=7)
    anchor = torch.full((4, 7), 1 / 7, requires_grad=True)
    feature = torch.full((4, 7), 1 / 7, requires_grad=True)
    with torch.inference_mode():
        loss(anchor, feature, 0.5)
    g = torch.func.grad(lambda f: loss(anchor.detach(), f, 0.25))(feature.detach())
    with FakeTensorMode():
        loss(torch.ones(7), torch.ones(4, 7), 0.125)
    for skew in (0.5, 0.25, 0.125):
        loss(anchor, feature, skew).backward()
        cached = compat._cached_skew_matrix(
            7, skew, -10, 10, dtype=torch.float32, device=torch.device("cpu")
        )
        assert type(cached) is Tensor
        assert not is_functorch_wrapped_tensor(cached)
        assert not cached.is_inference()
    (expected,) = torch.autograd.grad(loss(anchor, feature, 0.25), feature)
    torch.testing.assert_close(g, expected)


def test_categorical_loss_behaves_as_the_official_class() -> None:
    loss = compat.CategoricalLoss()
    assert (loss.atoms, loss.v_max, loss.v_min, loss.delta) == (51, 10, -10, 0.4)
    assert loss.supports.shape == (1, 1, 51)
    assert loss.state_dict() == {}
    assert loss.to("cpu") is loss
    feature = torch.full((2, 51), 1 / 51, dtype=torch.float16)
    assert loss(torch.full((51,), 1 / 51), feature).dtype == torch.float32
    assert "atoms=51" in repr(loss)


@pytest.mark.parametrize("method", ["forward", "from_logits"])
def test_categorical_loss_refuses_wrong_shapes(method: str) -> None:
    call = getattr(compat.CategoricalLoss(atoms=5), method)
    with pytest.raises(ValueError, match=r"must have shape \[N, 5\], got \[4, 6\]"):
        call(torch.ones(5), torch.ones(4, 6))
    with pytest.raises(ValueError, match=r"anchor must have shape \[5\] or \[4, 5\] to match"):
        call(torch.ones(6), torch.ones(4, 5))
    with pytest.raises(ValueError, match="low must be below high"):
        compat.CategoricalLoss(atoms=5, v_max=-1, v_min=1)
