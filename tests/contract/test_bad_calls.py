"""Wrong arguments: the same error, word for word, from every backend and every entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bad_calls import BAD_CALLS, BadCall

from gankernels import functional, reference, value_and_grad
from gankernels.testing import OPERATORS

# Of functions that are not in the functional interface there is only the reference, tested elsewhere.
PUBLIC = [bad for bad in BAD_CALLS if hasattr(functional, bad.function)]
FUSED = {operator.name for operator in OPERATORS if operator.fused_operator}


def refuse(function: Callable[..., Any], bad: BadCall) -> None:
    args, kwargs = bad.arguments()
    with pytest.raises(bad.error) as caught:
        function(*args, **kwargs)
    assert str(caught.value) == bad.message


@pytest.mark.parametrize("bad", PUBLIC, ids=lambda bad: bad.label)
def test_the_functions_refuse(bad: BadCall) -> None:
    refuse(getattr(functional, bad.function), bad)


@pytest.mark.backends("cpu")
@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: bad.label)
def test_the_reference_refuses(bad: BadCall) -> None:
    refuse(getattr(reference, bad.function), bad)


@pytest.mark.parametrize(
    "bad", [bad for bad in PUBLIC if bad.function in FUSED], ids=lambda bad: bad.label
)
def test_value_and_grad_refuses(bad: BadCall) -> None:
    refuse(value_and_grad(getattr(functional, bad.function)), bad)


@pytest.mark.parametrize("name", [operator.name for operator in OPERATORS])
def test_every_operator_has_bad_calls(name: str) -> None:
    assert any(bad.function == name for bad in BAD_CALLS)


def test_a_refused_call_leaves_the_arguments_usable() -> None:
    z, target = torch.zeros(4, 5, requires_grad=True), torch.full((5,), 0.2)
    with pytest.raises(ValueError, match="dim must be in"):
        functional.softmax_kl(z, target, dim=7)
    functional.softmax_kl(z, target).backward()
    assert z.grad is not None


# --- anchors checked on request ------------------------------------------------------------------

BAD_ANCHORS = [
    ([0.5, -0.1, 0.6], "must not be negative, got a minimum of -0.1"),
    ([0.5, float("nan"), 0.5], "must be finite, got values in"),
    ([0.5, float("inf"), 0.5], "must be finite, got values in"),
    ([0.0, 0.0, 0.0], "must have a positive entry, got 0 everywhere"),
]


@pytest.mark.parametrize(("values", "message"), BAD_ANCHORS, ids=[m for _, m in BAD_ANCHORS])
def test_anchor_values_are_checked_on_request(values: list[float], message: str) -> None:
    z, good = torch.zeros(2, 3), torch.full((3,), 1 / 3)
    bad = torch.tensor(values, dtype=torch.float64)
    for loss in (functional.realness_d_loss, value_and_grad(functional.realness_d_loss)):
        with pytest.raises(ValueError, match=f"fake_anchor {message}"):
            loss(z, z, good, bad, validate=True)
        with pytest.raises(ValueError, match=f"real_anchor {message}"):
            loss(z, z, bad, good, validate=True)
        loss(z, z, bad, good)  # only on request: reading the values stops a GPU
    for loss in (functional.realness_g_loss, value_and_grad(functional.realness_g_loss)):
        with pytest.raises(ValueError, match=f"fake_anchor {message}"):
            loss(z, z, None, bad, validate=True)
    for loss in (functional.softmax_kl, value_and_grad(functional.softmax_kl)):
        with pytest.raises(ValueError, match=f"target {message}"):
            loss(z, bad, validate=True)


# --- the compiled operators, called without the functions above ----------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        (
            "softmax_kl_value_and_grad",
            lambda z: (z, z[0], 1, 7, True, False, True, 1.0),
            ValueError,
            "reduction must be 0 (none), 1 (mean) or 2 (sum), got 7",
        ),
        (
            "softmax_kl_value_and_grad",
            lambda z: (z, z[0], 1, 1, True, True, True, 1.0),
            ValueError,
            "target must have the shape of logits, [4, 5], where its gradient is asked for, "
            "got [5]",
        ),
        (
            "softmax_kl_value_and_grad",
            lambda z: (z, z.t(), 1, 1, True, False, True, 1.0),
            ValueError,
            "target must have shape [5] or [4, 5] to match logits, got [5, 4]",
        ),
        (
            "softmax_kl_logits_value_and_grad",
            lambda z: (z, z.double(), 1, 1, True, True, True, 1.0),
            TypeError,
            "p_logits and q_logits must have the same dtype, got torch.float32 and torch.float64",
        ),
        (
            "realness_d_loss_value_and_grad",
            lambda z: (z, z[:, :4], z[0], z[0], 1, 1, True, True, True, 1.0),
            ValueError,
            "real_logits and fake_logits must have the same number of classes along dim 1, "
            "got 5 and 4",
        ),
        (
            "realness_g_loss_value_and_grad",
            lambda z: (None, z, None, z[0], 2, 1, 1, False, True, True, 1.0),
            ValueError,
            "real_logits is required by objective 2, got None",
        ),
    ],
)
def test_kernels_check_for_themselves(
    name: str,
    arguments: Callable[[torch.Tensor], tuple[Any, ...]],
    error: type[Exception],
    message: str,
    device: str,
) -> None:
    with pytest.raises(error) as caught:
        getattr(torch.ops.gankernels, name)(*arguments(torch.zeros(4, 5, device=device)))
    assert str(caught.value) == message


# --- tensors that are not dense ------------------------------------------------------------------

NOT_DENSE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "sparse_coo": (torch.Tensor.to_sparse_coo, "layout torch.sparse_coo"),
    "sparse_csr": (lambda t: t.reshape(-1, 1).to_sparse_csr(), "layout torch.sparse_csr"),
    "sparse_csc": (lambda t: t.reshape(-1, 1).to_sparse_csc(), "layout torch.sparse_csc"),
    "sparse_bsr": (lambda t: t.reshape(-1, 1).to_sparse_bsr(1), "layout torch.sparse_bsr"),
    "sparse_bsc": (lambda t: t.reshape(-1, 1).to_sparse_bsc(1), "layout torch.sparse_bsc"),
    "mkldnn": (torch.Tensor.to_mkldnn, "layout torch._mkldnn"),
    "nested": (lambda t: torch.nested.nested_tensor([t, t]), "a nested tensor"),
    "jagged": (
        lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged),
        "a nested tensor",
    ),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensor|CSR|CSC|BSR|BSC|Sparse).*:UserWarning")
@pytest.mark.parametrize("form", NOT_DENSE)
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_a_tensor_that_is_not_dense_is_refused_by_its_layout(operator: Any, form: str) -> None:
    convert, found = NOT_DENSE[form]
    arguments = operator.draw(next(operator.few_cases()), torch.float32)
    tensors = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    for name in tensors:
        if arguments[name].dim() == 0:
            continue
        bad = arguments | {name: convert(arguments[name].detach())}
        for function in (operator.functional, operator.reference):
            with pytest.raises(TypeError, match=f"{name} must be a dense tensor, got {found}"):
                function(**bad)
