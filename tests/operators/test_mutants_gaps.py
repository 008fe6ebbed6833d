"""Compiled operators against the reference, where a mutant of tools/mutants found no other test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gankernels import functional, reference
from gankernels._scalar import SCALAR_LOSSES
from gankernels.testing import DTYPES, assert_accurate, cotangent, differentiate, in_dtype

SCALAR = tuple(SCALAR_LOSSES)
OPTIONS: dict[str, dict[str, Any]] = {
    "logistic_d_loss smoothed": {"label_smoothing": 0.25},
    "logistic_d_loss labelled": {"real_label": 0.9, "fake_label": 0.2, "scale": 3.0},
    "lsgan_d_loss labelled": {"real_label": 0.5, "fake_label": -1.5},
}
scalar_losses = pytest.mark.parametrize("name", [*SCALAR, *OPTIONS])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))


def both(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    function = name.split()[0]
    return getattr(functional, function), getattr(reference, function)


def scalar_arguments(name: str, dtype: torch.dtype, reduction: str) -> dict[str, Any]:
    """Both batches with the kinks of every loss among their logits, and an odd number of them."""
    generator = torch.Generator().manual_seed(0)
    kinks = torch.tensor([0.0, 1.0, -1.0, 30.0, -30.0])
    real = torch.cat([kinks, 2 * torch.randn(20, generator=generator)]).view(5, 5).to(dtype)
    fake = torch.cat([kinks, 2 * torch.randn(20, generator=generator)]).view(5, 5).to(dtype)
    loss = SCALAR_LOSSES[name.split()[0]]
    if reduction != "none" and not loss.pair:
        fake = fake[:3]  # the batches' sizes must not be mixed up
    if loss.pair:
        fake = fake.flip(0)
    batches = {"real_logits": real, "fake_logits": fake}
    given = {n: x for n, x in batches.items() if n in loss.arguments}
    return {**given, "reduction": reduction, **OPTIONS.get(name, {})}


def logits_of(arguments: dict[str, Any]) -> list[str]:
    return [key for key, value in arguments.items() if isinstance(value, Tensor)]


@every_dtype
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@scalar_losses
def test_scalar_loss_is_its_reference(name: str, reduction: str, dtype: torch.dtype) -> None:
    compiled, specification = both(name)
    arguments = scalar_arguments(name, dtype, reduction)
    names = logits_of(arguments)
    # One cotangent for all rows: what others do to coupled rows is the contract tests' subject.
    ones = torch.ones_like(specification(**arguments)) if "relativistic" in name else None
    double = in_dtype(arguments, torch.float64)
    got, got_gradients = differentiate(compiled, arguments, names, ones)
    exact, exact_gradients = differentiate(specification, double, names, ones)
    eager, eager_gradients = differentiate(specification, arguments, names, ones)
    assert_accurate("value", got, exact, eager, eager.dtype, magnitude=30.0)
    for key in names:
        assert_accurate(
            f"gradient to {key}",
            got_gradients[key],
            exact_gradients[key],
            eager_gradients[key],
            dtype,
            eager.dtype,
            magnitude=float(exact_gradients[key].abs().max()),
        )


def derivatives(function: Callable[..., Tensor], arguments: dict[str, Any]) -> list[Tensor]:
    """The gradients under create_graph, and those of a function of them."""
    names = logits_of(arguments)
    leaves = [arguments[name].detach().clone().requires_grad_() for name in names]
    # The slopes of some losses are constant: a second derivative needs something that is not.
    moved = {name: leaf + leaf.sin() for name, leaf in zip(names, leaves, strict=True)}
    value = function(**{**arguments, **moved})
    first = torch.autograd.grad(value, leaves, cotangent(value), create_graph=True)
    weighted = sum((g * cotangent(g)).square().sum() for g in first)
    assert isinstance(weighted, Tensor)
    return [*first, *torch.autograd.grad(weighted, leaves)]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@scalar_losses
def test_scalar_loss_has_its_references_second_derivative(name: str, reduction: str) -> None:
    compiled, specification = both(name)
    arguments = scalar_arguments(name, torch.float64, reduction)
    found, expected = derivatives(compiled, arguments), derivatives(specification, arguments)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("grad_output", [0.5, -3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SCALAR, "softmax_kl"])
def test_a_weighted_loss_has_weighted_gradients(
    name: str, dtype: torch.dtype, grad_output: float
) -> None:
    compiled, specification = both(name)
    if name == "softmax_kl":
        anchor = torch.full((5,), 0.2, dtype=dtype)
        arguments: dict[str, Any] = {"logits": torch.randn(5, 5, dtype=dtype), "target": anchor}
        names = ["logits"]
    else:
        arguments = scalar_arguments(name, dtype, "mean")
        names = logits_of(arguments)
    _, got = differentiate(compiled, arguments, names, torch.tensor(grad_output))
    _, expected = differentiate(specification, arguments, names, torch.tensor(grad_output))
    torch.testing.assert_close(got, expected)


def test_scaled_fp16_gradients_of_scalar_losses_do_not_underflow() -> None:
    logits = torch.linspace(-2, 2, 2**18).to(torch.float16)
    for name in ("nonsaturating_g_loss", "lsgan_g_loss"):
        compiled, specification = both(name)
        scale = torch.tensor(2.0**16)
        arguments = {"fake_logits": logits}
        _, got = differentiate(compiled, arguments, ["fake_logits"], scale)
        _, exact = differentiate(
            specification, {"fake_logits": logits.double()}, ["fake_logits"], scale
        )
        torch.testing.assert_close(
            got["fake_logits"].double(), exact["fake_logits"], rtol=2**-10, atol=1e-6
        )


def test_logarithm_of_a_subnormal_target() -> None:
    target = torch.tensor([[1e-40, 1 - 1e-40], [3e-39, 1.0]], requires_grad=True)
    functional.softmax_kl(torch.zeros(2, 2), target, reduction="sum").backward()
    assert target.grad is not None
    expected = target.detach().double().log() + 1 + math.log(2)
    torch.testing.assert_close(target.grad.double(), expected, rtol=1e-6, atol=0)


def test_softplus_is_exact_above_the_threshold_of_pytorchs() -> None:
    for logit in (20.5, 25.0, 30.0):
        expected = logit + math.log1p(math.exp(-logit))
        found = reference.nonsaturating_g_loss(torch.tensor([-logit], dtype=torch.float64))
        assert found.item() == pytest.approx(expected, rel=4e-16)


# --- layers --------------------------------------------------------------------------------------


def test_reversal_spares_a_gradient_kept_in_another_shape() -> None:
    """The gradient of a view is a new tensor, but on memory that a hook may have kept."""
    x, factors = torch.randn(3, 4, requires_grad=True), torch.randn(12)
    kept: list[Tensor] = []
    flat = functional.gradient_reversal(x).view(-1)
    flat.register_hook(kept.append)
    (flat * factors).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, -factors.view(3, 4))
    assert torch.equal(kept[0], factors)


def test_reversal_of_an_expanded_gradient_that_nobody_else_holds() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    (2 * functional.gradient_reversal(x).sum()).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((3, 4), -2.0))


@every_dtype
@pytest.mark.parametrize(
    ("shape", "dim"), [((5, 14), 1), ((3, 6, 5), 1), ((6,), 0), ((3, 2, 4), -1)]
)
def test_resample_is_its_reference(shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
    statistics = torch.randn(shape, dtype=torch.float64).to(dtype)
    half = list(shape)
    half[dim] //= 2
    noise = torch.randn(half, dtype=torch.float64).to(reference.accumulation_dtype(dtype))
    arguments = {"mu_logvar": statistics, "dim": dim, "noise": noise}
    names = ["mu_logvar"]
    got, got_gradient = differentiate(functional.resample_logits, arguments, names)
    double = in_dtype(arguments, torch.float64)
    exact, exact_gradient = differentiate(reference.resample_logits, double, names)
    eager, eager_gradient = differentiate(reference.resample_logits, arguments, names)
    accumulation = reference.accumulation_dtype(dtype)
    assert_accurate("value", got, exact, eager, dtype, accumulation)
    assert_accurate(
        "gradient",
        got_gradient["mu_logvar"],
        exact_gradient["mu_logvar"],
        eager_gradient["mu_logvar"],
        dtype,
        accumulation,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_resample_has_its_references_second_derivative(dtype: torch.dtype) -> None:
    arguments = {"mu_logvar": torch.randn(4, 6).to(dtype), "noise": torch.randn(4, 3)}

    def second(function: Callable[..., Tensor]) -> list[Tensor]:
        leaf = arguments["mu_logvar"].clone().requires_grad_()
        value = function(leaf, noise=arguments["noise"].to(reference.accumulation_dtype(dtype)))
        (first,) = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)
        return [first, *torch.autograd.grad(first.square().sum(), leaf)]

    close = (
        {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 0.02, "atol": 0.02}
    )
    torch.testing.assert_close(
        second(functional.resample_logits), second(reference.resample_logits), **close
    )


@pytest.mark.parametrize("objective", [0, 1, 2, 3])
def test_resampled_realness_is_resampling_and_loss(objective: int) -> None:
    """Objective 0: the discriminator's loss. First and second derivatives to both statistics."""
    generator = torch.Generator().manual_seed(0)
    anchors = [torch.rand(3, generator=generator).double().softmax(0) for _ in range(2)]
    noises = [torch.randn(4, 3, generator=generator).double() for _ in range(2)]
    inputs = [torch.randn(4, 6, generator=generator).double() for _ in range(2)]
    options = {"objective": objective} if objective else {}
    letter = "g" if objective else "d"
    drawn = dict(zip(("real_noise", "fake_noise"), noises, strict=True))

    def whole(module: Any) -> Callable[..., Tensor]:
        loss = getattr(module, f"resampled_realness_{letter}_loss")
        return lambda real, fake: loss(real, fake, *anchors, **drawn, **options)

    def apart(real: Tensor, fake: Tensor) -> Tensor:
        logits = [
            reference.resample_logits(x, noise=noise)
            for x, noise in zip((real, fake), noises, strict=True)
        ]
        return getattr(reference, f"realness_{letter}_loss")(*logits, *anchors, **options)

    found = []
    for function in (apart, whole(functional), whole(reference)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        wanted = leaves if objective in (0, 2) else leaves[1:]
        value = function(*leaves)
        plain = torch.autograd.grad(value, wanted, retain_graph=True)
        graph = torch.autograd.grad(value, wanted, create_graph=True)
        squares = torch.stack([g.square().sum() for g in graph]).sum()
        found.append([value, *plain, *graph, *torch.autograd.grad(squares, wanted)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-11, atol=1e-12)


@every_dtype
def test_negate_writes_every_element_and_bumps_the_version(dtype: torch.dtype) -> None:
    whole = torch.randn(5, 7).to(dtype)
    before = whole.clone()
    part = whole[:, ::2]
    version = part._version
    assert functional.negate_(part) is part
    assert part._version == version + 1
    assert torch.equal(part, -before[:, ::2])
    assert torch.equal(whole[:, 1::2], before[:, 1::2])


@pytest.mark.compiled
def test_negate_refuses_in_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="t must not overlap itself in memory"):
        torch.ops.gankernels.negate_(torch.ones(1).expand(3))
    with pytest.raises(RuntimeError, match="t must not be a leaf that requires grad"):
        torch.ops.gankernels.negate_(torch.ones(3, requires_grad=True))


# --- shapes and dtypes without data --------------------------------------------------------------

META: dict[str, tuple[Any, ...]] = {
    "softmax_kl_value_and_grad": ("rows", "rows", 1, "reduction", True, True, True, 1.0),
    "softmax_kl_logits_value_and_grad": ("rows", "rows", 1, "reduction", True, True, True, 1.0),
    "relativistic_loss_value_and_grad": (
        "rows",
        "rows",
        [0.0, -1.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0, 1.0, 0.0],
        "reduction",
        True,
        True,
        True,
        1.0,
    ),
    "scalar_loss_value_and_grad": (
        ["rows", "rows", "weight", "rows"],
        "a,b,w,c",
        [0, 1, 2, 0, 3, -1, -1, 1],
        [0.0, -1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0],
        1.0,
        "reduction",
        [0, 1, 2, 3],
        True,
        1.0,
    ),
    "scale_terms": (["rows", "rows"], ["one", "weight"], [3, -1]),
    "scale_terms_": (["rows", "rows"], ["one", "weight"], [3, -1]),
    "scale_gradient": ("rows", "one", 1, 3),
    "scale_gradients": ("rows", "rows", "one", 1, 3, 3),
    "resample_forward": ("rows", "half", 1),
    "resample_backward": ("half", "rows", "half", 1),
}


@pytest.mark.compiled
@every_dtype
@pytest.mark.parametrize("name", META)
def test_meta_kernels_promise_what_the_others_return(name: str, dtype: torch.dtype) -> None:
    operator = getattr(torch.ops.gankernels, name)
    accumulation = reference.accumulation_dtype(dtype)
    for reduction in (0, 1, 2) if "reduction" in META[name] else (0,):
        found = []
        for device in ("cpu", "meta"):
            half = dtype if name == "resample_backward" and dtype == accumulation else accumulation
            named = {
                "rows": torch.ones(3, 4, 2, dtype=dtype, device=device),
                "half": torch.ones(3, 2, 2, dtype=half, device=device),
                "one": torch.ones((), dtype=accumulation, device=device),
                "weight": torch.ones(3, 4, 2, dtype=accumulation, device=device),
                "reduction": reduction,
            }

            def given(x: Any, named: dict[str, Any] = named) -> Any:
                if isinstance(x, list):
                    return [given(item) for item in x]
                return named.get(x, x) if isinstance(x, str) else x

            values = [given(x) for x in META[name]]
            if name == "resample_backward":
                values[0] = values[0].to(dtype)
            result = operator(*values)
            found.append(
                [
                    (t.shape, t.dtype, t.stride())
                    for t in tree_leaves(values[0] if result is None else result)
                ]
            )
        assert found[0] == found[1]
