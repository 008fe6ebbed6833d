"""Losses straight from statistics: the same as resampling first, in value and in every gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gankernels as gk
from gankernels import reference
from gankernels.testing import assert_accurate

K = 5
Call = Callable[..., Tensor]


def arguments(dtype: torch.dtype, shape: tuple[int, ...] = (6, 2 * K)) -> dict[str, Tensor]:
    torch.manual_seed(0)
    noise_shape = (shape[0], K, *shape[2:])
    return {
        "real_statistics": torch.randn(shape, dtype=torch.float64).to(dtype),
        "fake_statistics": torch.randn(shape, dtype=torch.float64).to(dtype),
        "real_anchor": gk.anchors.gaussian(K, 1, 1, -2, 2),
        "fake_anchor": torch.tensor([0.5, 0.0, 0.3, 0.2, 0.3]),
        "real_noise": torch.randn(noise_shape),
        "fake_noise": torch.randn(noise_shape),
    }


def losses(namespace: object) -> dict[str, Call]:
    """The D loss and the three G objectives as functions of the same keywords."""
    d_loss, g_loss = namespace.resampled_realness_d_loss, namespace.resampled_realness_g_loss  # type: ignore[attr-defined]
    return {
        "d": d_loss,
        **{f"g{n}": lambda n=n, **kw: g_loss(objective=n, **kw) for n in (1, 2, 3)},
    }


def differentiate(loss: Call, given: dict[str, Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    leaves = [
        given[name].clone().requires_grad_() for name in ("real_statistics", "fake_statistics")
    ]
    value = loss(**{**given, "real_statistics": leaves[0], "fake_statistics": leaves[1]})
    return value, list(torch.autograd.grad(value.sum(), leaves, allow_unused=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["d", "g1", "g2", "g3"])
def test_equals_resampling_first(name: str, reduction: str, dtype: torch.dtype) -> None:
    given = {**arguments(dtype), "reduction": reduction}
    exact_given = {k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()}
    value, grads = differentiate(losses(gk)[name], given)
    exact, exact_grads = differentiate(losses(reference)[name], exact_given)
    eager, eager_grads = differentiate(losses(reference)[name], given)
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    assert_accurate(f"{name} value", value, exact, eager, accumulation, magnitude=30.0)
    for got, want, plain in zip(grads, exact_grads, eager_grads, strict=True):
        if want is None or got is None:
            assert got is None or not got.any()
            continue
        assert_accurate(f"{name} gradient", got, want, plain, dtype, accumulation, magnitude=4.0)


@pytest.mark.parametrize("name", ["d", "g1", "g2", "g3"])
def test_derivatives_of_both_orders(name: str) -> None:
    given = {k: v.double() for k, v in arguments(torch.float64, (3, 2 * K)).items()}
    leaves = [given.pop(k).requires_grad_() for k in ("real_statistics", "fake_statistics")]

    def loss(real: Tensor, fake: Tensor) -> Tensor:
        return losses(gk)[name](real_statistics=real, fake_statistics=fake, **given)

    if name in ("g1", "g3"):
        fixed = leaves[0].detach()
        assert torch.autograd.gradcheck(lambda fake: loss(fixed, fake), leaves[1])
        assert torch.autograd.gradgradcheck(lambda fake: loss(fixed, fake), leaves[1])
    else:
        assert torch.autograd.gradcheck(loss, leaves)
        assert torch.autograd.gradgradcheck(loss, leaves)


def test_spatial_statistics() -> None:
    given = arguments(torch.float32, (2, 2 * K, 3, 2))
    value, grads = differentiate(gk.resampled_realness_d_loss, given)
    expected, expected_grads = differentiate(reference.resampled_realness_d_loss, given)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grads, expected_grads)


def test_noise_is_drawn_where_it_is_not_given() -> None:
    given = arguments(torch.float32)
    del given["real_noise"], given["fake_noise"]
    torch.manual_seed(1)
    first = gk.resampled_realness_d_loss(**given)
    second = gk.resampled_realness_d_loss(**given)
    torch.manual_seed(1)
    assert torch.equal(first, gk.resampled_realness_d_loss(**given))
    assert not torch.equal(first, second)


def test_objectives_without_real_statistics() -> None:
    given = arguments(torch.float32)
    fake = {k: given[k] for k in ("fake_statistics", "fake_anchor", "fake_noise")}
    value = gk.resampled_realness_g_loss(None, real_anchor=None, objective=1, **fake)
    assert torch.isfinite(value)
    with pytest.raises(ValueError, match="is required by objective 2, got None"):
        gk.resampled_realness_g_loss(None, real_anchor=None, objective=2, **fake)


def test_value_and_grad_gives_the_gradients_of_the_statistics() -> None:
    given = arguments(torch.float32)
    value, grads = gk.value_and_grad(gk.resampled_realness_d_loss)(**given)
    expected, expected_grads = differentiate(gk.resampled_realness_d_loss, given)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(list(grads), expected_grads)


@pytest.mark.dynamo
def test_under_compile() -> None:
    given = arguments(torch.float32)
    compiled = torch.compile(gk.resampled_realness_d_loss, fullgraph=True, backend="aot_eager")
    value, grads = differentiate(compiled, given)
    expected, expected_grads = differentiate(gk.resampled_realness_d_loss, given)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"real_statistics": torch.zeros(6, 9)},
            "real_statistics must have an even number|must have",
        ),
        ({"fake_noise": torch.zeros(6, 4)}, r"noise must have shape \[6, 5\] to match"),
        ({"real_anchor": torch.ones(4)}, r"real_anchor must have shape \[5\]"),
    ],
)
def test_bad_arguments(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gk.resampled_realness_d_loss(**{**arguments(torch.float32), **change})


def test_anchors_are_constants() -> None:
    if not gk.build_info()["extension"]:
        pytest.skip("the reference differentiates anchors too: no extension")
    given = arguments(torch.float32)
    given["real_anchor"].requires_grad_()
    with pytest.raises(RuntimeError, match="anchors that require grad need resample_logits"):
        gk.resampled_realness_d_loss(**given)
