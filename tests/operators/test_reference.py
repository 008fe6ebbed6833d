"""The specification itself: hand-computed numbers, PyTorch's own losses, and the calculus."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from bad_calls import BAD_CALLS, BadCall
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gankernels import reference

INF, NAN = math.inf, math.nan
# float64 against float64: a few hundred roundings of numbers around 1.
EXACT = {"rtol": 1e-12, "atol": 1e-13}

A0 = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
A1 = torch.tensor([0.0, 0.1, 0.3, 0.6], dtype=torch.float64)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).mul(2).to(dtype)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


# Every loss as a function of (real, fake) logits of shape (N, 4).
LOSSES = {
    "softmax_kl": lambda r, f: reference.softmax_kl(f, A0),
    "softmax_kl to both": lambda r, f: reference.softmax_kl(
        f, 0.7 * r.to(reference.accumulation_dtype(r.dtype)).softmax(1)
    ),
    "softmax_kl_logits": lambda r, f: reference.softmax_kl_logits(r, f),
    "realness_d_loss": lambda r, f: reference.realness_d_loss(r, f, A1, A0),
    "realness_g_loss 1": lambda r, f: reference.realness_g_loss(None, f, None, A0, objective=1),
    "realness_g_loss 2": lambda r, f: reference.realness_g_loss(r, f, None, A0, objective=2),
    "realness_g_loss 3": lambda r, f: reference.realness_g_loss(None, f, A1, A0, objective=3),
    "logistic_d_loss": reference.logistic_d_loss,
    "logistic_d_loss 0.1": lambda r, f: reference.logistic_d_loss(r, f, label_smoothing=0.1),
    "nonsaturating_g_loss": lambda r, f: reference.nonsaturating_g_loss(f),
    "saturating_g_loss": lambda r, f: reference.saturating_g_loss(f),
    "hinge_d_loss": reference.hinge_d_loss,
    "hinge_g_loss": lambda r, f: reference.hinge_g_loss(f),
    "wasserstein_d_loss": reference.wasserstein_d_loss,
    "wasserstein_g_loss": lambda r, f: reference.wasserstein_g_loss(f),
    "lsgan_d_loss": reference.lsgan_d_loss,
    "lsgan_g_loss": lambda r, f: reference.lsgan_g_loss(f),
    "relativistic_d_loss": reference.relativistic_d_loss,
    "relativistic_g_loss": reference.relativistic_g_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())

SCALAR = {
    # name: ((real, fake) terms for one real logit 2.0 and one fake logit -0.5)
    "logistic_d_loss": softplus(-2.0) + softplus(-0.5),
    "nonsaturating_g_loss": softplus(0.5),
    "saturating_g_loss": -softplus(-0.5),
    "hinge_d_loss": 0.5,
    "hinge_g_loss": 0.5,
    "wasserstein_d_loss": -2.5,
    "wasserstein_g_loss": 0.5,
    "lsgan_d_loss": 0.5 + 0.125,
    "lsgan_g_loss": 1.125,
    "relativistic_d_loss": 2 * softplus(-2.5),
    "relativistic_g_loss": 2 * softplus(2.5),
}
# The same for a real logit 0.25 and a fake one 1.5, where no term lies as far from one label as from another.
ELSEWHERE = {
    "logistic_d_loss": softplus(-0.25) + softplus(1.5),
    "nonsaturating_g_loss": softplus(-1.5),
    "saturating_g_loss": -softplus(1.5),
    "hinge_d_loss": 0.75 + 2.5,
    "hinge_g_loss": -1.5,
    "wasserstein_d_loss": -0.25 + 1.5,
    "wasserstein_g_loss": -1.5,
    "lsgan_d_loss": 0.28125 + 1.125,
    "lsgan_g_loss": 0.125,
    "relativistic_d_loss": 2 * softplus(1.25),
    "relativistic_g_loss": 2 * softplus(-1.25),
}
TWO_BATCH = {name for name in SCALAR if "_d_" in name or "relativistic" in name}


def call_scalar(name: str, real: Tensor, fake: Tensor, **options: object) -> Tensor:
    loss = getattr(reference, name)
    return loss(real, fake, **options) if name in TWO_BATCH else loss(fake, **options)


# --- distributions -------------------------------------------------------------------------------


def test_hand_computed_divergences() -> None:
    uniform = torch.zeros(1, 4, dtype=torch.float64)
    log = torch.tensor([[1.0, 2.0, 4.0, 1.0]], dtype=torch.float64).log()
    half = torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=torch.float64)
    assert reference.softmax_kl(uniform, half).item() == pytest.approx(math.log(2))
    # sum A log A/q with q = (1, 2, 4, 1) / 8
    assert reference.softmax_kl(log, half).item() == pytest.approx(
        0.5 * math.log(0.5 * 4) + 0.5 * math.log(0.5 * 2)
    )
    # unnormalised, S = 2: sum A log A - sum A log q
    assert reference.softmax_kl(uniform, 2 * half).item() == pytest.approx(2 * math.log(4))
    assert reference.softmax_kl_logits(log, uniform).item() == pytest.approx(
        0.25 * math.log(0.5) + 0.25 * math.log(1) + 0.5 * math.log(2)
    )


@pytest.mark.parametrize(("shape", "dim"), [((6, 4), 1), ((6, 4), -1), ((4,), 0), ((2, 4, 3, 5), 1),
                                            ((4, 7), 0), ((3, 2, 4), 2)])  # fmt: skip
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softmax_kl_is_pytorchs_kl_div(shape: tuple[int, ...], dim: int, reduction: str) -> None:
    logits = draw(*shape)
    target = draw(*shape, seed=1).softmax(dim) * 1.3
    rows = F.kl_div(logits.log_softmax(dim), target, reduction="none").sum(dim)
    expected = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    torch.testing.assert_close(
        reference.softmax_kl(logits, target, dim, reduction), expected, **EXACT
    )


def test_softmax_kl_is_cross_entropy_less_the_entropy() -> None:
    logits, entropy = draw(6, 4, 3), torch.special.entr(A0).sum()
    target = A0.view(1, 4, 1).expand(6, 4, 3)
    expected = F.cross_entropy(logits, target) - entropy
    torch.testing.assert_close(reference.softmax_kl(logits, A0), expected, **EXACT)
    torch.testing.assert_close(reference.softmax_kl(logits, A0.view(1, 4, 1)), expected, **EXACT)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_a_vector_serves_as_target_along_any_dim(dim: int) -> None:
    logits = draw(4, 4, 4)
    per_row = A1.expand(4, 4, 4).movedim(-1, dim)
    torch.testing.assert_close(
        reference.softmax_kl(logits, A1, dim), reference.softmax_kl(logits, per_row, dim), **EXACT
    )


def test_gradients_have_their_closed_forms() -> None:
    z = draw(5, 4).requires_grad_()
    target = (1.5 * A0).expand(5, 4).clone().requires_grad_()
    g_z, g_target = gradients(reference.softmax_kl(z, target, reduction="sum"), z, target)
    q = z.softmax(1)
    torch.testing.assert_close(g_z, target.sum(1, keepdim=True) * q - target, **EXACT)
    closed = target.log() + 1 - q.log()
    torch.testing.assert_close(g_target, closed.masked_fill(target == 0, 0), **EXACT)

    a, b = draw(5, 4, seed=1).requires_grad_(), draw(5, 4, seed=2).requires_grad_()
    rows = reference.softmax_kl_logits(a, b, reduction="none")
    g_a, g_b = gradients(rows.sum(), a, b)
    p, q = a.softmax(1), b.softmax(1)
    torch.testing.assert_close(g_b, q - p, **EXACT)
    torch.testing.assert_close(g_a, p * (p.log() - q.log() - rows[:, None]), **EXACT)


def test_realness_losses_are_the_papers_equations() -> None:
    r, f = draw(6, 4).requires_grad_(), draw(6, 4, seed=1).requires_grad_()
    kl, g = reference.softmax_kl, reference.realness_g_loss
    torch.testing.assert_close(
        reference.realness_d_loss(r, f, A1, A0), kl(r, A1) + kl(f, A0), **EXACT
    )
    torch.testing.assert_close(g(None, f, None, A0, objective=1), -kl(f, A0), **EXACT)
    torch.testing.assert_close(
        g(r, f, None, A0), reference.softmax_kl_logits(r, f) - kl(f, A0), **EXACT
    )
    torch.testing.assert_close(g(None, f, A1, A0, objective=3), kl(f, A1) - kl(f, A0), **EXACT)

    def fake_gradient(objective: int, scale: float = 1.0) -> Tensor:
        loss = g(r, f, A1, scale * A0, objective=objective, reduction="sum")
        return gradients(loss, f)[0]

    torch.testing.assert_close(fake_gradient(1, 1.5), 1.5 * (A0 - f.softmax(1)), **EXACT)
    # Linear in the fake logits, and constant, for anchors that sum to 1.
    torch.testing.assert_close(fake_gradient(2), A0 - r.softmax(1), **EXACT)
    torch.testing.assert_close(fake_gradient(3), (A0 - A1).expand(6, 4), **EXACT)


def test_two_outcomes_are_the_logistic_loss() -> None:
    r, f = draw(6, 2), draw(6, 2, seed=1)
    real_anchor, fake_anchor = torch.eye(2, dtype=torch.float64).flip(0)
    torch.testing.assert_close(
        reference.realness_d_loss(r, f, real_anchor, fake_anchor),
        reference.logistic_d_loss(r[:, 1] - r[:, 0], f[:, 1] - f[:, 0]),
        **EXACT,
    )


@given(
    logits=st.lists(st.floats(-50, 50), min_size=2, max_size=6),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_divergence_is_not_negative_and_ignores_a_shift(
    logits: list[float], shift: float, seed: int
) -> None:
    z = torch.tensor([logits], dtype=torch.float64)
    target = draw(len(logits), seed=seed).softmax(0)
    kl = reference.softmax_kl(z, target)
    assert kl >= -1e-14
    torch.testing.assert_close(reference.softmax_kl(z + shift, target), kl, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(reference.softmax_kl_logits(z + shift, z), torch.zeros_like(kl),
                               rtol=0, atol=1e-11)  # fmt: skip


# --- scalar losses -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCALAR)
def test_hand_computed_scalar_losses(name: str) -> None:
    real, fake = torch.tensor([2.0]), torch.tensor([-0.5])
    for shape in [(), (1,), (1, 1, 1)]:
        loss = call_scalar(name, real.view(shape), fake.view(shape))
        assert loss.item() == pytest.approx(SCALAR[name], rel=1e-6)


@pytest.mark.parametrize("name", SCALAR)
def test_hand_computed_scalar_losses_elsewhere(name: str) -> None:
    loss = call_scalar(name, torch.tensor([0.25]), torch.tensor([1.5]))
    assert loss.item() == pytest.approx(ELSEWHERE[name], rel=1e-6)


def test_logistic_losses_are_binary_cross_entropies() -> None:
    r, f = draw(5, 1, 3), draw(7, seed=1)
    bce = F.binary_cross_entropy_with_logits
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            reference.logistic_d_loss(r, f, label_smoothing=smoothing),
            bce(r, torch.full_like(r, 1 - smoothing)) + bce(f, torch.zeros_like(f)),
            **EXACT,
        )
    torch.testing.assert_close(
        reference.nonsaturating_g_loss(f), bce(f, torch.ones_like(f)), **EXACT
    )
    torch.testing.assert_close(
        reference.saturating_g_loss(f), -bce(f, torch.zeros_like(f)), **EXACT
    )


def test_logistic_gradients_are_sigmoids_everywhere() -> None:
    x = torch.tensor([0.0, 25.0, -25.0, 800.0, -800.0, 1e4, -1e4], dtype=torch.float64)
    r, f = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss = reference.logistic_d_loss(r, f, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([softplus(-v) + softplus(v) for v in x.tolist()],
                               dtype=torch.float64), **EXACT)  # fmt: skip
    g_r, g_f = gradients(loss.sum(), r, f)
    # rtol only: the tail of a sigmoid is a small number, not 0
    torch.testing.assert_close(g_r, -torch.sigmoid(-x), rtol=1e-12, atol=0)
    torch.testing.assert_close(g_f, torch.sigmoid(x), rtol=1e-12, atol=0)
    for name, expected in [
        ("nonsaturating_g_loss", -torch.sigmoid(-x)),
        ("saturating_g_loss", -torch.sigmoid(x)),
    ]:
        (g,) = gradients(getattr(reference, name)(f, reduction="sum"), f)
        torch.testing.assert_close(g, expected, rtol=1e-12, atol=0)


def test_hinge_gradient_is_zero_at_its_kinks() -> None:
    r, f = torch.tensor([1.0, 0.5]).requires_grad_(), torch.tensor([-1.0, 0.5]).requires_grad_()
    g_r, g_f = gradients(reference.hinge_d_loss(r, f, reduction="sum"), r, f)
    assert g_r.tolist() == [0.0, -1.0]
    assert g_f.tolist() == [0.0, 1.0]


def test_relativistic_losses_use_the_mean_of_the_other_batch() -> None:
    r, f = draw(3, 2), draw(5, seed=1)
    expected = F.softplus(-(r - f.mean())).mean() + F.softplus(f - r.mean()).mean()
    torch.testing.assert_close(reference.relativistic_d_loss(r, f), expected, **EXACT)
    torch.testing.assert_close(reference.relativistic_g_loss(f, r), expected, **EXACT)


# --- calculus ------------------------------------------------------------------------------------


@every_loss
def test_first_and_second_derivatives(loss) -> None:  # type: ignore[no-untyped-def]
    inputs = (draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_())
    assert gradcheck(loss, inputs, check_forward_ad=True)
    assert gradgradcheck(loss, inputs)


@every_loss
def test_torch_func_transforms(loss) -> None:  # type: ignore[no-untyped-def]
    r, f = draw(3, 2, 4), draw(3, 2, 4, seed=1)
    per_sample = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(r, f)
    for i in range(3):
        r_i, f_i = r[i].clone().requires_grad_(), f[i].clone().requires_grad_()
        expected = torch.autograd.grad(loss(r_i, f_i), (r_i, f_i), materialize_grads=True)
        for batched, single in zip(per_sample, expected, strict=True):
            torch.testing.assert_close(batched[i], single, **EXACT)


def test_gradients_to_targets_differentiate_twice() -> None:
    z = draw(3, 4).requires_grad_()
    target = draw(3, 4, seed=1).softmax(1).requires_grad_()
    assert gradcheck(reference.softmax_kl, (z, target), check_forward_ad=True)
    assert gradgradcheck(reference.softmax_kl, (z, target))
    vector = A1[1:].clone().requires_grad_()
    z = draw(3, 3).requires_grad_()
    assert gradgradcheck(lambda z, v: reference.realness_g_loss(z, 2 * z, None, v), (z, vector))


LAYERS = {
    "gradient_reversal": lambda r, f: reference.gradient_reversal(f, 0.5).sum(),
    "gradient_scale": lambda r, f: reference.gradient_scale(f, r[:, 0]).sum(),
    "resample_logits": lambda r, f: reference.resample_logits(f, noise=r[:, :2]).sum(),
}


@pytest.mark.dynamo
@pytest.mark.parametrize("name", [*LOSSES, *LAYERS])
def test_compiles_whole_with_dynamic_shapes(name: str) -> None:
    function = (LOSSES | LAYERS)[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n in (5, 7):  # not K: equal sizes would share a symbol
            inputs = draw(n, 4).requires_grad_(), draw(n, 4, seed=1).requires_grad_()
            value, expected = compiled(*inputs), function(*inputs)
            torch.testing.assert_close(value, expected, **EXACT)
            got = torch.autograd.grad(value, inputs, materialize_grads=True)
            want = torch.autograd.grad(expected, inputs, materialize_grads=True)
            torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.dynamo
def test_resampling_noise_is_drawn_under_compile() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        reference.resample_logits, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    z = compiled(torch.zeros(300, 20))
    assert z.shape == (300, 10)
    assert z.std().item() == pytest.approx(1, abs=0.1)


# --- dtypes, reductions, empty batches -----------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(loss, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    r, f = draw(5, 4, dtype=dtype), draw(5, 4, seed=1, dtype=dtype)
    half = r.clone().requires_grad_(), f.clone().requires_grad_()
    full = r.float().requires_grad_(), f.float().requires_grad_()
    value, expected = loss(*half), loss(*full)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    got = torch.autograd.grad(value, half, materialize_grads=True)
    want = torch.autograd.grad(expected, full, materialize_grads=True)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == dtype
        torch.testing.assert_close(g, w.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["realness_d_loss", *sorted(TWO_BATCH)])
def test_each_batch_is_reduced_by_its_own_count(name: str) -> None:
    r, f = draw(3, 4), draw(5, 4, seed=1)
    anchors = (A1, A0) if name == "realness_d_loss" else ()
    loss = getattr(reference, name)
    if "relativistic" in name:  # the means couple the batches: equal batches only
        f = f[:3]
    same = loss(r, f[:3], *anchors, reduction="none")
    assert same.shape == ((3,) if anchors else (3, 4))
    torch.testing.assert_close(loss(r, f[:3], *anchors), same.mean(), **EXACT)
    torch.testing.assert_close(loss(r, f[:3], *anchors, reduction="sum"), same.sum(), **EXACT)
    if "relativistic" not in name:
        # repeating one batch changes its sum, not its mean
        torch.testing.assert_close(loss(r, torch.cat([f[:3]] * 2), *anchors), same.mean(), **EXACT)
        extra = loss(r[:0], f[:3], *anchors, reduction="sum")
        torch.testing.assert_close(
            loss(r, torch.cat([f[:3]] * 2), *anchors, reduction="sum"), same.sum() + extra, **EXACT
        )


@every_loss
def test_empty_batches(loss) -> None:  # type: ignore[no-untyped-def]
    r, f = draw(0, 4).requires_grad_(), draw(0, 4).requires_grad_()
    value = loss(r, f)
    assert value.isnan()
    (g,) = torch.autograd.grad(value, f)
    assert g.shape == (0, 4)


def test_empty_batches_sum_to_zero() -> None:
    empty = draw(0, 4)
    assert reference.softmax_kl(empty, A0, reduction="sum") == 0
    assert reference.softmax_kl(empty, A0, reduction="none").shape == (0,)
    assert reference.realness_d_loss(empty, empty, A1, A0, reduction="sum") == 0
    assert reference.logistic_d_loss(empty, empty, reduction="sum") == 0


# --- extremes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "gap"),
    [(torch.float32, 100.0), (torch.float32, 1e4), (torch.float64, 1e4), (torch.float16, 6e4)],
)
def test_all_probability_on_the_wrong_bin(dtype: torch.dtype, gap: float) -> None:
    z = torch.tensor([[gap, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0.0, 0.0, 1.0])
    loss = reference.softmax_kl(z, target)
    (g,) = gradients(loss, z)
    assert loss.item() == gap
    assert g.tolist() == [[1.0, pytest.approx(0, abs=1e-40), -1.0]]


def test_a_zero_bin_counts_nothing_even_at_minus_infinity() -> None:
    z = torch.tensor([[-INF, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    loss = reference.softmax_kl(z, target)
    g_z, g_target = torch.autograd.grad(loss, (z, target), create_graph=True)
    assert abs(loss.item()) < 1e-15
    torch.testing.assert_close(g_z, torch.zeros_like(g_z), **EXACT)
    # log A + 1 - log q = 1 where A = q = 1/2
    torch.testing.assert_close(g_target, torch.tensor([[0.0, 1.0, 1.0]]).double(), **EXACT)
    second = torch.autograd.grad(g_z[0, 1] + g_target.sum(), (z, target))
    assert all(bool(s.isfinite().all()) for s in second)
    both = reference.softmax_kl_logits(z, z.detach().clone().requires_grad_())
    assert both == 0
    assert bool(gradients(both, z)[0].isfinite().all())


def test_mass_on_an_impossible_bin_is_infinite() -> None:
    z = torch.tensor([[-INF, 0.0, 0.0]])
    assert reference.softmax_kl(z, torch.tensor([0.5, 0.5, 0.0])) == INF
    assert reference.softmax_kl_logits(torch.zeros(1, 3), z) == INF


@pytest.mark.parametrize("bad", [[NAN, 0.0, 0.0], [INF, 0.0, 0.0], [-INF, -INF, -INF]])
def test_rows_without_a_softmax_are_nan(bad: list[float]) -> None:
    z, clean = torch.tensor([bad]), torch.zeros(1, 3)
    assert z.softmax(1).isnan().all()
    for target in ([0.2, 0.3, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]):
        assert reference.softmax_kl(z, torch.tensor(target)).isnan()
    assert reference.softmax_kl_logits(z, clean).isnan()
    assert reference.softmax_kl_logits(clean, z).isnan()


def test_nan_in_a_target_is_nan() -> None:
    assert reference.softmax_kl(torch.zeros(2, 3), torch.tensor([NAN, 0.5, 0.5])).isnan()


@pytest.mark.parametrize("name", SCALAR)
def test_scalar_losses_at_infinity_and_nan(name: str) -> None:
    assert call_scalar(name, torch.zeros(2), torch.tensor([0.0, NAN])).isnan()
    losing = call_scalar(name, torch.tensor([-1e4]), torch.tensor([-1e4 if "_g_" in name else 1e4]))
    assert losing.isfinite()
    if "relativistic" not in name:
        lost = call_scalar(name, torch.tensor([-INF]), torch.tensor([INF]))
        assert not lost.isnan()


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, torch.tensor(0.5), 0.0])
def test_gradient_reversal(alpha: float | Tensor) -> None:
    x = draw(3, 4).requires_grad_()
    y = reference.gradient_reversal(x, alpha)
    assert torch.equal(y, x)
    (g,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    torch.testing.assert_close(g, -float(alpha) * 2 * x, **EXACT)
    (h,) = torch.autograd.grad(g.sum(), x)
    torch.testing.assert_close(h, torch.full_like(x, 2 * float(alpha) ** 2), **EXACT)
    twice = reference.gradient_reversal(reference.gradient_reversal(x, alpha), alpha).sum()
    torch.testing.assert_close(
        gradients(twice, x)[0], torch.full_like(x, float(alpha) ** 2), **EXACT
    )


def test_gradient_reversal_keeps_infinities_and_survives_an_in_place_op() -> None:
    x = torch.tensor([INF, -1.0, 2.0], requires_grad=True)
    h = x * 1
    y = reference.gradient_reversal(h)
    assert torch.equal(y, x)
    (g,) = gradients(y.relu_().sum() + h.sum(), x)  # h itself is not touched
    assert g.tolist() == [0.0, 1.0, 0.0]


def test_gradient_scale_per_sample() -> None:
    x, scale = draw(3, 4, 2).requires_grad_(), torch.tensor([0.0, -1.0, 2.5])
    y = reference.gradient_scale(x, scale)
    assert torch.equal(y, x)
    (g,) = gradients(y.sum(), x)
    assert g.dtype == x.dtype
    torch.testing.assert_close(g, scale.double().view(3, 1, 1).expand(3, 4, 2), **EXACT)
    half = x.detach().bfloat16().requires_grad_()
    (g,) = gradients(reference.gradient_scale(half, scale).sum(), half)
    assert g.dtype == torch.bfloat16


def test_layers_under_torch_func() -> None:
    x, tangent = draw(3, 4), draw(3, 4, seed=1)
    _, out = torch.func.jvp(lambda x: reference.gradient_reversal(x, 0.5), (x,), (tangent,))
    torch.testing.assert_close(out, -0.5 * tangent, **EXACT)
    scale = torch.tensor([1.0, 2.0, 3.0])
    half = x.half(), tangent.half()
    _, out = torch.func.jvp(lambda x: reference.gradient_scale(x, scale), half[:1], half[1:])
    assert out.dtype == torch.float16
    per_sample = torch.vmap(torch.func.grad(lambda x, s: reference.gradient_scale(x, s).sum()))
    torch.testing.assert_close(per_sample(x, scale), scale.double()[:, None].expand(3, 4), **EXACT)


def test_negate_in_place() -> None:
    t = draw(4, 6)[:, ::2]
    before, version = t.clone(), t._version
    assert reference.negate_(t) is t
    assert torch.equal(t, -before)
    assert t._version == version + 1
    leaf = draw(3).requires_grad_()
    (g,) = gradients(reference.negate_(leaf * 2).sum(), leaf)
    assert g.tolist() == [-2.0] * 3
    with torch.no_grad():
        reference.negate_(leaf)
    one_row = torch.ones(3).as_strided((1, 3), (0, 1))
    no_rows = torch.ones(0, 1).expand(0, 4)
    for allowed in (torch.ones(3, 4).t(), one_row, no_rows):
        reference.negate_(allowed)


def test_resample_logits() -> None:
    stats = draw(5, 6, 2).requires_grad_()
    noise = draw(5, 3, 2, seed=1)
    mean, log_variance = stats[:, :3], stats[:, 3:]
    z = reference.resample_logits(stats, noise=noise)
    torch.testing.assert_close(z, mean + noise * log_variance.exp().sqrt(), **EXACT)
    weight = draw(5, 3, 2, seed=2)
    (g,) = gradients((z * weight).sum(), stats)
    torch.testing.assert_close(
        g, torch.cat([weight, 0.5 * weight * (z - mean)], 1).detach(), **EXACT
    )
    assert gradgradcheck(lambda s: reference.resample_logits(s, noise=noise), (stats,))


def test_resample_logits_draws_standard_normal_noise_from_the_generator() -> None:
    stats = torch.zeros(4, 6, dtype=torch.float16)
    z = reference.resample_logits(stats, generator=torch.Generator().manual_seed(3))
    expected = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    assert z.dtype == torch.float16
    assert torch.equal(z, expected.half())
    torch.manual_seed(3)
    assert torch.equal(reference.resample_logits(stats), expected.half())


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: bad.label)
def test_bad_calls_are_refused(bad: BadCall) -> None:
    args, kwargs = bad.arguments()
    with pytest.raises(bad.error) as caught:
        getattr(reference, bad.function)(*args, **kwargs)
    assert str(caught.value) == bad.message


def test_every_public_name_has_a_bad_call() -> None:
    assert {bad.function for bad in BAD_CALLS} == set(reference.__all__)
