"""Of losses over distributions, beside logits and targets: reductions, temperatures, factors, mixed dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gankernels as gk
from gankernels import reference, value_and_grad

EXACT = {"rtol": 1e-11, "atol": 1e-12}
T = 2.5

of_either = pytest.mark.parametrize("module", [gk, reference], ids=["operators", "reference"])


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, leaves, retain_graph=True)


# --- batchmean -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, -1])
@of_either
def test_batchmean_is_that_of_pytorch(module: Any, dim: int) -> None:
    torch.manual_seed(0)
    z, target = draw(4, 5, 3).requires_grad_(), draw(4, 5, 3).softmax(dim)
    expected = F.kl_div(F.log_softmax(z / T, dim), target, reduction="batchmean")
    options = {"dim": dim, "reduction": "batchmean", "temperature": T}
    found = module.softmax_kl(z, target, **options)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(gradients(found, z), gradients(expected, z), **EXACT)
    of_logits = module.softmax_kl_logits(T * target.log(), z, **options)
    torch.testing.assert_close(of_logits, expected, **EXACT)
    if module is gk:
        value, (gradient,) = value_and_grad(gk.softmax_kl)(z, target, **options)
        torch.testing.assert_close(value, expected.detach(), **EXACT)
        torch.testing.assert_close((gradient,), gradients(expected, z), **EXACT)


@pytest.mark.parametrize("shapes", [((4, 5), (6, 5)), ((4, 5, 3), (4, 5, 2)), ((5, 3), (5, 2))])
def test_batchmean_divides_each_batch_by_its_own_size(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    torch.manual_seed(1)
    real, fake = (draw(*shape).requires_grad_() for shape in shapes)
    dim = 0 if shapes[0] == (5, 3) else 1
    anchors = draw(5).softmax(0), draw(5).softmax(0)
    expected = sum(
        gk.softmax_kl(x, a, dim, "sum") / x.shape[0]
        for x, a in zip((real, fake), anchors, strict=True)
    )
    assert isinstance(expected, Tensor)
    found = gk.realness_d_loss(real, fake, *anchors, dim, "batchmean")
    torch.testing.assert_close(found, expected, **EXACT)
    g = gradients(expected, real, fake)
    torch.testing.assert_close(gradients(found, real, fake), g, **EXACT)
    value, fused = value_and_grad(gk.realness_d_loss)(real, fake, *anchors, dim, "batchmean")
    torch.testing.assert_close(value, expected.detach(), **EXACT)
    torch.testing.assert_close(fused, g, **EXACT)


@pytest.mark.parametrize("uneven", [False, True])
def test_batchmean_of_statistics(uneven: bool) -> None:
    torch.manual_seed(2)
    real, fake = draw(4, 10, 3), draw(4, 10, 2 if uneven else 3)
    noise = draw(4, 5, 3), draw(4, 5, 2 if uneven else 3)
    a = draw(5).softmax(0)
    options: dict[str, Any] = {"real_noise": noise[0], "fake_noise": noise[1]}
    call = (real, fake, a, a, 1)
    sums = gk.resampled_realness_d_loss(*call, "sum", **options)
    means = gk.resampled_realness_d_loss(*call, "batchmean", **options)
    torch.testing.assert_close(means, sums / 4, **EXACT)
    value, _ = value_and_grad(gk.resampled_realness_d_loss)(*call, "batchmean", **options)
    torch.testing.assert_close(value, means, **EXACT)


def test_a_generator_loss_has_a_batchmean() -> None:
    torch.manual_seed(3)
    z, a = draw(2, 7, 5), draw(5).softmax(0)
    for objective in (1, 2, 3):
        call = (z.flip(0), z, a.flip(0), a, objective, -1)
        expected = gk.realness_g_loss(*call, "sum") / 2
        torch.testing.assert_close(gk.realness_g_loss(*call, "batchmean"), expected, **EXACT)


def test_small_batchmean_gradients_survive_fp16() -> None:
    """They are divided when the factor of a GradScaler has arrived, as those of a mean are."""
    rows, factor = 2**16, 2.0**16
    z = torch.zeros(rows, 2, dtype=torch.float16, requires_grad=True)
    target = torch.tensor([0.51, 0.49])
    (gk.softmax_kl(z, target, reduction="batchmean") * factor).backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad[0], torch.tensor([-0.01, 0.01]).half(), rtol=0.02, atol=0)


# --- temperature and scale -----------------------------------------------------------------------


@of_either
def test_distillation_as_it_is_written(module: Any) -> None:
    torch.manual_seed(4)
    teacher, student = draw(2, 7, 5), draw(2, 7, 5).requires_grad_()
    p, log_q = (teacher / T).softmax(-1), (student / T).log_softmax(-1)
    expected = F.kl_div(log_q, p, reduction="batchmean") * T**2
    options = {"dim": -1, "reduction": "batchmean", "scale": T**2}
    for temperatures in ({"temperature": T}, {"p_temperature": T, "q_temperature": T}):
        found = module.softmax_kl_logits(teacher, student, **options, **temperatures)
        torch.testing.assert_close(found, expected, **EXACT)
        torch.testing.assert_close(gradients(found, student), gradients(expected, student), **EXACT)
    one_sided = module.softmax_kl_logits(teacher, student, dim=-1, temperature=T, q_temperature=1)
    of_q = F.kl_div(student.log_softmax(-1), p, reduction="sum") / 14
    torch.testing.assert_close(one_sided, of_q, **EXACT)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_are_finite_and_right(temperature: float) -> None:
    torch.manual_seed(5)
    a, b = draw(3, 6, dtype=torch.float32).requires_grad_(), draw(3, 6, dtype=torch.float32)
    found = gk.softmax_kl_logits(a, b, temperature=temperature)
    wide = a.detach().double().requires_grad_()
    exact = reference.softmax_kl_logits(wide, b.double(), temperature=temperature)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    (g,), (exact_g,) = gradients(found, a), gradients(exact, wide)
    torch.testing.assert_close(g.double(), exact_g, rtol=1e-3, atol=1e-6 / temperature)


@pytest.mark.parametrize("statistics", [False, True], ids=["logits", "statistics"])
@pytest.mark.parametrize("objective", [0, 1, 2, 3])
def test_losses_of_both_networks_have_a_factor(objective: int, statistics: bool) -> None:
    """Objective 0 is the discriminator's loss."""
    torch.manual_seed(12)
    inputs = [draw(4, 10), draw(4, 10)] if statistics else [draw(4, 5), draw(4, 5)]
    noise = {"real_noise": draw(4, 5), "fake_noise": draw(4, 5)} if statistics else {}
    anchors = draw(5).softmax(0), draw(5).softmax(0)
    name = f"realness_{'g' if objective else 'd'}_loss"
    name = f"resampled_{name}" if statistics else name
    settings: dict[str, Any] = {**noise, **({"objective": objective} if objective else {})}
    places = [1] if objective in (1, 3) else [0, 1]
    results = []
    for module, scale in ((gk, 0.6), (reference, 0.6), (reference, 1.0)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        used = [leaves[i] for i in places]
        loss = getattr(module, name)
        value = loss(*leaves, *anchors, scale=scale, **settings)
        first = torch.autograd.grad(value, used, create_graph=True)
        # Objective 3 is linear in the logits.
        total = sum((g.square() + g * x).sum() for g, x in zip(first, used, strict=True))
        second = torch.autograd.grad(total, used)
        again = torch.autograd.grad(loss(*leaves, *anchors, scale=scale, **settings), used)
        results.append([value, *first, *again, *second])
        if module is gk:
            fused, found = value_and_grad(loss)(*leaves, *anchors, scale=scale, **settings)
            torch.testing.assert_close(fused, value.detach(), **EXACT)
            torch.testing.assert_close([found[i] for i in places], list(again), **EXACT)
    ours, same, plain = results
    for found, expected in zip(ours, same, strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    for found, expected in zip(same[: -len(places)], plain, strict=False):
        torch.testing.assert_close(found, 0.6 * expected, **EXACT)


# --- mixed dtypes --------------------------------------------------------------------------------

PAIRS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "softmax_kl_logits": lambda a, b, _: gk.softmax_kl_logits(a, b, temperature=T),
    "weighted": lambda a, b, _: gk.softmax_kl_logits(a, b, weight=torch.ones(4)),
    "js_divergence": lambda a, b, _: gk.js_divergence(a, b, 0.3),
    "realness_d_loss": lambda a, b, anchor: gk.realness_d_loss(a, b, anchor, anchor),
    "realness_g_loss": lambda a, b, anchor: gk.realness_g_loss(a, b, None, anchor),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.float32, torch.float64),
    ],
    ids=str,
)
def test_each_side_gets_its_gradient_in_its_own_dtype(
    name: str, one: torch.dtype, other: torch.dtype
) -> None:
    torch.manual_seed(6)
    a, b = draw(4, 5, dtype=one).requires_grad_(), draw(4, 5, dtype=other).requires_grad_()
    anchor = torch.full((5,), 0.2)
    found = PAIRS[name](a, b, anchor)
    common = torch.promote_types(one, other)
    wide = [x.detach().to(common).requires_grad_() for x in (a, b)]
    expected = PAIRS[name](*wide, anchor)
    assert torch.equal(found, expected)
    for x, g, w in zip((a, b), gradients(found, a, b), gradients(expected, *wide), strict=True):
        assert g.dtype == x.dtype
        assert torch.equal(g, w.to(x.dtype))


def test_value_and_gradients_of_mixed_dtypes() -> None:
    torch.manual_seed(7)
    a, b, anchor = draw(4, 5).half(), draw(4, 5).float(), torch.full((5,), 0.2)
    statistics = draw(4, 10).half(), draw(4, 10).float()
    noise = torch.zeros(4, 5)
    for found, expected in (
        (
            value_and_grad(gk.softmax_kl_logits)(a, b),
            value_and_grad(gk.softmax_kl_logits)(a.float(), b),
        ),
        (
            value_and_grad(gk.realness_d_loss)(a, b, anchor, anchor),
            value_and_grad(gk.realness_d_loss)(a.float(), b, anchor, anchor),
        ),
        (
            value_and_grad(gk.realness_g_loss)(a, b, None, anchor),
            value_and_grad(gk.realness_g_loss)(a.float(), b, None, anchor),
        ),
        (
            value_and_grad(gk.resampled_realness_d_loss)(
                *statistics, anchor, anchor, real_noise=noise, fake_noise=noise
            ),
            value_and_grad(gk.resampled_realness_d_loss)(
                *(s.float() for s in statistics), anchor, anchor, real_noise=noise, fake_noise=noise
            ),
        ),
    ):
        assert torch.equal(found[0], expected[0])
        assert [g.dtype for g in found[1]] == [torch.float16, torch.float32]  # type: ignore[union-attr]
        for g, wide in zip(found[1], expected[1], strict=True):
            assert g is not None
            assert wide is not None
            assert torch.equal(g, wide.to(g.dtype))


# --- the Jensen-Shannon divergence ---------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dim", [1, -1])
@of_either
def test_js_is_its_formula(module: Any, beta: float, dim: int) -> None:
    torch.manual_seed(8)
    a, b = draw(2, 6, 4).requires_grad_(), draw(2, 6, 4).requires_grad_()
    p, q = (a / T).softmax(dim), (b / T).softmax(dim)
    m = beta * p + (1 - beta) * q
    kl_p, kl_q = ((x * (x / m).log()).sum(dim) for x in (p, q))
    rows = beta * kl_p + (1 - beta) * kl_q
    options = {"dim": dim, "temperature": T, "scale": 3.0}
    torch.testing.assert_close(
        module.js_divergence(a, b, beta, reduction="none", **options), 3 * rows, **EXACT
    )
    found = module.js_divergence(a, b, beta, **options)
    closed = (
        beta * p * ((p / m).log() - kl_p.unsqueeze(dim)) / T,
        (1 - beta) * q * ((q / m).log() - kl_q.unsqueeze(dim)) / T,
    )
    expected = tuple(3 * g / rows.numel() for g in closed)
    torch.testing.assert_close(gradients(found, a, b), expected, **EXACT)
    assert torch.autograd.gradgradcheck(
        lambda x, y: module.js_divergence(x, y, beta, **options), (a[:1], b[:1])
    )
    swapped = module.js_divergence(b, a, 1 - beta, **options)
    torch.testing.assert_close(swapped, found, **EXACT)


@of_either
def test_js_of_distillation_as_it_is_written(module: Any) -> None:
    """The three expressions of on-policy distillation, teacher first."""
    torch.manual_seed(13)
    teacher, student, beta = draw(2, 4, 6), draw(2, 4, 6).requires_grad_(), 0.1
    log_p, log_q = (F.log_softmax(z / T, dim=-1) for z in (teacher, student))
    log_m = torch.logsumexp(torch.stack([log_p + math.log(beta), log_q + math.log(1 - beta)]), 0)
    of_teacher = F.kl_div(log_m, log_p, reduction="none", log_target=True)
    of_student = F.kl_div(log_m, log_q, reduction="none", log_target=True)
    expected = (beta * of_teacher + (1 - beta) * of_student).sum() / 8
    found = module.js_divergence(teacher, student, beta, dim=-1, temperature=T)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(gradients(found, student), gradients(expected, student), **EXACT)


@of_either
def test_js_is_bounded_and_tends_to_kl(module: Any) -> None:
    torch.manual_seed(9)
    a, b = draw(5, 6), draw(5, 6)
    far, farther = torch.tensor([[0.0, -1e4]]), torch.tensor([[-1e4, 0.0]])
    for beta in (0.2, 0.5):
        most = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert module.js_divergence(far, farther, beta).item() == pytest.approx(most)
        assert module.js_divergence(a, b, beta).item() < most
    small = 1e-7
    limit = module.js_divergence(a, b, small) / small
    torch.testing.assert_close(limit, gk.softmax_kl_logits(a, b), rtol=1e-5, atol=0)


@pytest.mark.parametrize("place", ["p", "q", "both"])
@of_either
def test_js_of_impossible_classes(module: Any, place: str) -> None:
    """A class without mass counts nothing, here or there, and takes no gradient, nor one of that."""
    torch.manual_seed(12)
    a, b = draw(2, 4), draw(2, 4)
    if place in ("p", "both"):
        a[:, 1] = -math.inf
    if place in ("q", "both"):
        b[:, 1] = -math.inf
    results = []
    for floor in (-math.inf, -1e4):
        leaves = [x.clamp(min=floor).requires_grad_() for x in (a, b)]
        value = module.js_divergence(*leaves, 0.3)
        first = gradients(value, *leaves)
        with_graph = torch.autograd.grad(value, leaves, create_graph=True)
        mixed = sum((g * torch.arange(4.0)).sum() for g in with_graph)
        results.append((value, *first, *with_graph, *gradients(mixed, *leaves)))
    torch.testing.assert_close(results[0], results[1], **EXACT)


@pytest.mark.dynamo
def test_js_value_and_grad_and_compile() -> None:
    torch.manual_seed(10)
    a, b = draw(3, 5).requires_grad_(), draw(3, 5)
    loss = gk.js_divergence(a, b, 0.3, scale=2.0)
    value, (g_a, g_b) = value_and_grad(gk.js_divergence)(a, b, 0.3, scale=2.0, grad_scale=4.0)
    torch.testing.assert_close(value, loss.detach(), **EXACT)
    torch.testing.assert_close(g_a, 4 * gradients(loss, a)[0], **EXACT)
    assert g_b is None
    compiled = torch.compile(gk.js_divergence, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled(a, b), a), gradients(gk.js_divergence(a, b), a))


# --- the module ----------------------------------------------------------------------------------


def test_the_module_hands_its_factor_on() -> None:
    torch.manual_seed(11)
    real, fake = draw(4, 3, 5), draw(4, 3, 5)
    anchors = draw(5).softmax(0), draw(5).softmax(0)
    options: dict[str, Any] = {"dim": -1, "reduction": "batchmean", "scale": 0.25}
    loss = gk.RealnessLoss(*anchors, **options)
    assert "scale=0.25" in repr(loss)
    expected = gk.realness_d_loss(real, fake, *anchors, **options)
    torch.testing.assert_close(loss.discriminator(real, fake), expected, **EXACT)
    value, _ = loss.discriminator_value_and_grad(real, fake)
    torch.testing.assert_close(value, expected, **EXACT)
    expected = gk.realness_g_loss(real, fake, *anchors, **options)
    torch.testing.assert_close(loss.generator(real, fake), expected, **EXACT)


# --- traced ---------------------------------------------------------------------------------------


@pytest.mark.dynamo
def test_numbers_and_shapes_may_change_under_compile() -> None:
    torch.manual_seed(13)

    def distil(a: Tensor, b: Tensor, temperature: float) -> Tensor:
        options: dict[str, Any] = {"temperature": temperature, "scale": temperature**2}
        return gk.softmax_kl_logits(a, b, dim=-1, reduction="batchmean", **options)

    compiled = torch.compile(distil, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape, temperature in (((2, 7, 5), 2.0), ((3, 6, 4), 2.0), ((3, 6, 4), 3.0)):
        a, b = draw(*shape), draw(*shape, dtype=torch.float32).requires_grad_()
        found, expected = (torch.autograd.grad(f(a, b, temperature), b) for f in (compiled, distil))
        torch.testing.assert_close(found, expected)
