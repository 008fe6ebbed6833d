"""Calls that must be refused, with the exact error: one table for every backend.

A row names a public function, builds its arguments, and gives the error's type and text. The
reference and the compiled operators are both run against it.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import torch

from gankernels import functional
from gankernels._scalar import SCALAR_LOSSES

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class BadCall(NamedTuple):
    function: str
    arguments: Callable[[], Arguments]
    error: type[Exception]
    message: str

    @property
    def label(self) -> str:
        return f"{self.function}: {self.message}"


def _call(*args: Any, **kwargs: Any) -> Arguments:
    return args, kwargs


def _zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


A = torch.full((5,), 0.2)
REDUCTION = "reduction must be 'mean', 'sum' or 'none', got 'avg'"
DIVERGENCE_REDUCTION = "reduction must be 'mean', 'batchmean', 'sum' or 'none', got 'avg'"

_TWO_BATCH = [name for name, loss in SCALAR_LOSSES.items() if len(loss.arguments) == 2]
_WEIGHTED = [n for n in _TWO_BATCH if "real_weight" in signature(getattr(functional, n)).parameters]
_ONE_BATCH = {
    name: loss.arguments[0] for name, loss in SCALAR_LOSSES.items() if len(loss.arguments) == 1
}
_LABELS = [
    (name, label)
    for name in SCALAR_LOSSES
    for label in ("real_label", "fake_label")
    if name.startswith("logistic") and label in signature(getattr(functional, name)).parameters
]

DISTRIBUTION_LOSSES = [
    # softmax_kl
    BadCall(
        "softmax_kl",
        lambda: _call([[0.0]], A),
        TypeError,
        "logits must be a Tensor, got list",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5, dtype=torch.int64), A),
        TypeError,
        "logits must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5, dtype=torch.complex64), A),
        TypeError,
        "logits must be a floating-point tensor, got torch.complex64",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), _zeros(5, dtype=torch.int32)),
        TypeError,
        "target must be a floating-point tensor, got torch.int32",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), None),
        TypeError,
        "target must be a Tensor, got NoneType",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(), A),
        ValueError,
        "logits must have at least 1 dimension, got a 0-dim tensor",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, dim=2),
        ValueError,
        "dim must be in [-2, 1] for logits with 2 dimensions, got 2",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, dim=-3),
        ValueError,
        "dim must be in [-2, 1] for logits with 2 dimensions, got -3",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 0), _zeros(0)),
        ValueError,
        "logits must have at least one class along dim 1, got shape [4, 0]",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), _zeros(4)),
        ValueError,
        "target must have shape [5] or [4, 5] to match logits, got [4]",
    ),
    BadCall(
        "softmax_kl",  # no silent broadcast of (N, K) against (K, N)
        lambda: _call(_zeros(4, 5), _zeros(5, 4)),
        ValueError,
        "target must have shape [5] or [4, 5] to match logits, got [5, 4]",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), _zeros(4, 1)),
        ValueError,
        "target must have shape [5] or [4, 5] to match logits, got [4, 1]",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5, 3), _zeros(4, 5, 1)),
        ValueError,
        "target must have shape [5] or [4, 5, 3] to match logits, got [4, 5, 1]",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), _zeros(5, device="meta")),
        RuntimeError,
        "target and logits must be on the same device, got meta and cpu",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, reduction=None),
        ValueError,
        "reduction must be 'mean', 'batchmean', 'sum' or 'none', got None",
    ),
    # softmax_kl_logits
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(3, 5)),
        ValueError,
        "p_logits and q_logits must have the same shape, got [4, 5] and [3, 5]",
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5, device="meta")),
        RuntimeError,
        "p_logits and q_logits must be on the same device, got cpu and meta",
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5, dtype=torch.bool)),
        TypeError,
        "q_logits must be a floating-point tensor, got torch.bool",
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), dim=3),
        ValueError,
        "dim must be in [-2, 1] for p_logits with 2 dimensions, got 3",
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    # realness_d_loss
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 6), A, A),
        ValueError,
        "real_logits and fake_logits must have the same number of classes along dim 1, got 5 and 6",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 5, 2), A, A),
        ValueError,
        "real_logits and fake_logits must have the same number of dimensions, got 2 and 3",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(3, 5), A, A, reduction="none"),
        ValueError,
        "real_logits and fake_logits must have the same shape, got [4, 5] and [3, 5]",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 5, device="meta"), A, A),
        RuntimeError,
        "real_logits and fake_logits must be on the same device, got cpu and meta",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), _zeros(6), A),
        ValueError,
        "real_anchor must have shape [5] or [4, 5] to match real_logits, got [6]",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(3, 5), A, _zeros(4, 5)),
        ValueError,
        "fake_anchor must have shape [5] or [3, 5] to match fake_logits, got [4, 5]",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), None, A, A),
        TypeError,
        "fake_logits must be a Tensor, got NoneType",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), A, A, reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    # realness_g_loss
    BadCall(
        "realness_g_loss",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), A, A, objective=4),
        ValueError,
        "objective must be 1, 2 or 3, got 4",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(None, _zeros(4, 5), None, A, objective=2),
        ValueError,
        "real_logits is required by objective 2, got None",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(None, _zeros(4, 5), None, A, objective=3),
        ValueError,
        "real_anchor is required by objective 3, got None",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(_zeros(3, 5), _zeros(4, 5), None, A, objective=2),
        ValueError,
        "real_logits and fake_logits must have the same shape, got [3, 5] and [4, 5]",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(None, _zeros(4, 5), None, None, objective=1),
        TypeError,
        "fake_anchor must be a Tensor, got NoneType",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(None, _zeros(4, 5), _zeros(4), A, objective=3),
        ValueError,
        "real_anchor must have shape [5] or [4, 5] to match fake_logits, got [4]",
    ),
    BadCall(
        "realness_g_loss",
        lambda: _call(None, _zeros(4, 5), None, A, objective=1, reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    *(
        BadCall(
            "softmax_kl",
            lambda t=temperature: _call(_zeros(4, 5), A, temperature=t),
            ValueError,
            f"temperature must be finite and positive, got {temperature}",
        )
        for temperature in (0.0, -1, float("inf"), float("nan"))
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, temperature=_zeros(1)),
        TypeError,
        "temperature must be a number, got tensor([0.])",
    ),
    *(
        BadCall(
            "softmax_kl_logits",
            lambda side=side: _call(_zeros(4, 5), _zeros(4, 5), **{side: 0.0}),
            ValueError,
            f"{side} must be finite and positive, got 0.0",
        )
        for side in ("p_temperature", "q_temperature")
    ),
    *(
        BadCall(
            name, lambda n=n: _call(*n, scale="2"), TypeError, "scale must be a number, got '2'"
        )
        for name, n in {
            "softmax_kl": (_zeros(4, 5), A),
            "softmax_kl_logits": (_zeros(4, 5), _zeros(4, 5)),
            "realness_d_loss": (_zeros(4, 5), _zeros(4, 5), A, A),
            "realness_g_loss": (_zeros(4, 5), _zeros(4, 5), A, A),
            "js_divergence": (_zeros(4, 5), _zeros(4, 5)),
        }.items()
    ),
    # weights and masks of rows
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5, 3), A, weight=_zeros(3)),
        ValueError,
        "weight must have shape [4] or [4, 3], got [3]",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, weight=_zeros(4, dtype=torch.int64)),
        TypeError,
        "weight must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, weight=0.5),
        TypeError,
        "weight must be a Tensor, got float",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, weight=_zeros(4, device="meta")),
        RuntimeError,
        "weight and logits must be on the same device, got meta and cpu",
    ),
    BadCall(
        "softmax_kl",
        lambda: _call(_zeros(4, 5), A, reduction="avg", weight=_zeros(4)),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), mask=_zeros(4)),
        TypeError,
        "mask must be a bool tensor, got torch.float32",
    ),
    BadCall(
        "softmax_kl_logits",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), mask=_zeros(5, dtype=torch.bool)),
        ValueError,
        "mask must have shape [4], got [5]",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(3, 5), A, A, fake_weight=_zeros(4)),
        ValueError,
        "fake_weight must have shape [3], got [4]",
    ),
    BadCall(
        "realness_d_loss",
        lambda: _call(_zeros(4, 5), _zeros(3, 5), A, A, real_mask=_zeros(4)),
        TypeError,
        "real_mask must be a bool tensor, got torch.float32",
    ),
    # js_divergence
    *(
        BadCall(
            "js_divergence",
            lambda b=beta: _call(_zeros(4, 5), _zeros(4, 5), b),
            ValueError,
            f"beta must be in (0, 1), got {beta}",
        )
        for beta in (0.0, 1.0, -0.5, float("nan"))
    ),
    BadCall(
        "js_divergence",
        lambda: _call(_zeros(4, 5), _zeros(3, 5)),
        ValueError,
        "p_logits and q_logits must have the same shape, got [4, 5] and [3, 5]",
    ),
    BadCall(
        "js_divergence",
        lambda: _call(_zeros(4, 5), _zeros(4, 5), reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
]


SCALAR_LOSSES = [
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(4, dtype=torch.int64)),
            TypeError,
            "fake_logits must be a floating-point tensor, got torch.int64",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(4, device="meta")),
            RuntimeError,
            "real_logits and fake_logits must be on the same device, got cpu and meta",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(3), reduction="none"),
            ValueError,
            "real_logits and fake_logits must have the same shape, got [4] and [3]",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(name, lambda: _call(_zeros(4), _zeros(4), reduction="avg"), ValueError, REDUCTION)
        for name in _TWO_BATCH
    ),
    *(
        BadCall(name, lambda: _call(_zeros(4), reduction="avg"), ValueError, REDUCTION)
        for name in _ONE_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4, dtype=torch.int64)),
            TypeError,
            f"{logits} must be a floating-point tensor, got torch.int64",
        )
        for name, logits in _ONE_BATCH.items()
    ),
    *(
        BadCall(name, lambda: _call(0.5), TypeError, f"{logits} must be a Tensor, got float")
        for name, logits in _ONE_BATCH.items()
    ),
    *(
        BadCall(
            name,
            lambda: _call([]),
            ValueError,
            f"{logits} must be a tensor or a list of at least one, got an empty list",
        )
        for name, logits in _ONE_BATCH.items()
    ),
    *(
        BadCall(
            name,
            lambda: _call([_zeros(3), [_zeros(3)]]),
            TypeError,
            f"{logits}[1] must be a Tensor, got a list: of nested lists give the entry that holds the logits, "
            f"for instance [outputs[-1] for outputs in {logits}]",
        )
        for name, logits in _ONE_BATCH.items()
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4, 3), weight=_zeros(3)),
            ValueError,
            f"weight must have shape [4] or [4, 3] to match {logits}, got [3]",
        )
        for name, logits in _ONE_BATCH.items()
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4, 3), mask=_zeros(4)),
            TypeError,
            "mask must be a bool tensor, got torch.float32",
        )
        for name in _ONE_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call([_zeros(4), _zeros(3)], mask=[None]),
            ValueError,
            "mask must be a tensor or a list of 2, got 1",
        )
        for name in _ONE_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), reduction="none", per_output=True),
            ValueError,
            "per_output must be False with reduction 'none', got True",
        )
        for name in _ONE_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call([_zeros(4), _zeros(3)], [_zeros(4)]),
            ValueError,
            "real_logits and fake_logits must be of the same discriminators, got 2 and 1",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call([_zeros(4)], _zeros(4)),
            ValueError,
            "real_logits and fake_logits must be of the same discriminators, got 1 and a tensor",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call([_zeros(4)], [0.5]),
            TypeError,
            "fake_logits[0] must be a Tensor, got float",
        )
        for name in _TWO_BATCH
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(5, 2), fake_weight=_zeros(4)),
            ValueError,
            "fake_weight must have shape [5] or [5, 2] to match fake_logits, got [4]",
        )
        for name in _WEIGHTED
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(4), real_mask=_zeros(4)),
            TypeError,
            "real_mask must be a bool tensor, got torch.float32",
        )
        for name in _WEIGHTED
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4), _zeros(4), per_output=True, return_terms=True),
            ValueError,
            "per_output must be False with return_terms, got True",
        )
        for name in _WEIGHTED
    ),
    *(
        BadCall(
            name,
            lambda n=name, at=label: _call(
                *[_zeros(4)] * (1 if n in _ONE_BATCH else 2), **{at: 1.5}
            ),
            ValueError,
            f"{label} must be in [0, 1], got 1.5",
        )
        for name, label in _LABELS
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4, 3), _zeros(4, 3), mean_dim=1),
            ValueError,
            "mean_dim must be None or 0, got 1",
        )
        for name in ("relativistic_d_loss", "relativistic_g_loss")
    ),
    *(
        BadCall(
            name,
            lambda: _call(_zeros(4, 3), _zeros(4, 2), mean_dim=0),
            ValueError,
            "real_logits and fake_logits must have the same shape but for their number of samples with "
            "mean_dim=0, got [4, 3] and [4, 2]",
        )
        for name in ("relativistic_d_loss", "relativistic_g_loss")
    ),
    BadCall(
        "logistic_d_loss",
        lambda: _call(_zeros(4), _zeros(4), label_smoothing=0.1, real_label=0.9),
        ValueError,
        "label_smoothing must be 0 where real_label is given, got 0.1 and 0.9",
    ),
    BadCall(
        "logistic_d_loss",
        lambda: _call(_zeros(4), _zeros(4), label_smoothing=1.0),
        ValueError,
        "label_smoothing must be in [0, 1), got 1.0",
    ),
    BadCall(
        "logistic_d_loss",
        lambda: _call(_zeros(4), _zeros(4), label_smoothing=-0.1),
        ValueError,
        "label_smoothing must be in [0, 1), got -0.1",
    ),
]

STATISTICS_LOSSES = [
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call([[0.0]], _zeros(4, 10), A, A),
        TypeError,
        "real_statistics must be a Tensor, got list",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10, dtype=torch.int64), _zeros(4, 10), A, A),
        TypeError,
        "real_statistics must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 9), A, A),
        ValueError,
        "fake_statistics must have an even number of channels along dim 1, got shape [4, 9]",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 10), A, A, dim=2),
        ValueError,
        "dim must be in [-2, 1] for real_statistics with 2 dimensions, got 2",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 10), A, A, real_noise=_zeros(4, 4)),
        ValueError,
        "real_noise must have shape [4, 5] to match real_statistics, got [4, 4]",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 10), A, A, fake_noise=_zeros(4, 10)),
        ValueError,
        "fake_noise must have shape [4, 5] to match fake_statistics, got [4, 10]",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 12), A, A),
        ValueError,
        "real_logits and fake_logits must have the same number of classes along dim 1, got 5 and 6",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(3, 10), A, A, reduction="none"),
        ValueError,
        "real_statistics and fake_statistics must have the same shape, got [4, 10] and [3, 10]",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 10), _zeros(10), A),
        ValueError,
        "real_anchor must have shape [5] or [4, 5] to match real_logits, got [10]",
    ),
    BadCall(
        "resampled_realness_d_loss",
        lambda: _call(_zeros(4, 10), _zeros(4, 10), A, A, reduction="avg"),
        ValueError,
        DIVERGENCE_REDUCTION,
    ),
    BadCall(
        "resampled_realness_g_loss",
        lambda: _call(None, _zeros(4, 10), None, A),
        ValueError,
        "real_statistics is required by objective 2, got None",
    ),
    BadCall(
        "resampled_realness_g_loss",
        lambda: _call(_zeros(3, 10), _zeros(4, 10), None, A),
        ValueError,
        "real_statistics and fake_statistics must have the same shape, got [3, 10] and [4, 10]",
    ),
    BadCall(
        "resampled_realness_g_loss",
        lambda: _call(None, _zeros(4, 10), None, A, objective=4),
        ValueError,
        "objective must be 1, 2 or 3, got 4",
    ),
    BadCall(
        "resampled_realness_g_loss",
        lambda: _call(None, None, None, A, objective=1),
        TypeError,
        "fake_statistics must be a Tensor, got NoneType",
    ),
]

LAYERS = [
    BadCall(
        "gradient_reversal",
        lambda: _call(_zeros(4, dtype=torch.int64)),
        TypeError,
        "x must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "gradient_reversal",
        lambda: _call(_zeros(4), _zeros(4)),
        ValueError,
        "alpha must be a number or a tensor with one element, got shape [4]",
    ),
    BadCall(
        "gradient_reversal",
        lambda: _call(_zeros(4), None),
        TypeError,
        "alpha must be a number or a tensor with one element, got None",
    ),
    BadCall(
        "gradient_reversal",
        lambda: _call(_zeros(4), "0.3"),
        TypeError,
        "alpha must be a number or a tensor with one element, got '0.3'",
    ),
    BadCall(
        "gradient_scale",
        lambda: _call(_zeros(4), None),
        TypeError,
        "scale must be a number or a tensor, got None",
    ),
    BadCall(
        "gradient_scale",
        lambda: _call(_zeros(4), "0.3"),
        TypeError,
        "scale must be a number or a tensor, got '0.3'",
    ),
    BadCall(
        "gradient_scale",
        lambda: _call(_zeros(4, 2), _zeros(2)),
        ValueError,
        "scale must have shape [] or [4], got [2]",
    ),
    BadCall(
        "gradient_scale",
        lambda: _call(_zeros(4, 2), _zeros(4, dtype=torch.int64)),
        TypeError,
        "scale must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "negate_",
        lambda: _call(_zeros(4, dtype=torch.int64)),
        TypeError,
        "t must be a floating-point tensor, got torch.int64",
    ),
    BadCall(
        "negate_",
        lambda: _call(_zeros(4).requires_grad_()),
        RuntimeError,
        "t must not be a leaf that requires grad, got one outside torch.no_grad()",
    ),
    BadCall(
        "negate_",
        lambda: _call(_zeros(1, 3).expand(4, 3)),
        RuntimeError,
        "t must not overlap itself in memory, got shape [4, 3] with strides [0, 1]",
    ),
    BadCall(
        "negate_",
        lambda: _call(_zeros(8).as_strided((3, 3), (2, 1))),
        RuntimeError,
        "t must not overlap itself in memory, got shape [3, 3] with strides [2, 1]",
    ),
    BadCall(
        "resample_logits",
        lambda: _call(_zeros(4, 5)),
        ValueError,
        "mu_logvar must have an even number of channels along dim 1, got shape [4, 5]",
    ),
    BadCall(
        "resample_logits",
        lambda: _call(_zeros(4, 6), noise=_zeros(4, 6)),
        ValueError,
        "noise must have shape [4, 3] to match mu_logvar, got [4, 6]",
    ),
    BadCall(
        "resample_logits",
        lambda: _call(_zeros(4, 6), dim=2),
        ValueError,
        "dim must be in [-2, 1] for mu_logvar with 2 dimensions, got 2",
    ),
]

FEATURES = [
    BadCall("feature_matching_loss", make, error, message)
    for make, error, message in (
        (
            lambda: _call(_zeros(3), 0.5),
            TypeError,
            "fake_features must be a Tensor, got float",
        ),
        (
            lambda: _call([_zeros(3)], [[_zeros(3)]]),
            TypeError,
            "fake_features[0] must be a Tensor, got list",
        ),
        (
            lambda: _call([_zeros(3)], [_zeros(3).long()]),
            TypeError,
            "fake_features[0] must be a floating-point tensor, got torch.int64",
        ),
        (
            lambda: _call([[_zeros(3)], []], [[_zeros(3)], [_zeros(3)]]),
            ValueError,
            "real_features[1] and fake_features[1] must have the same length, got 0 and 1",
        ),
        (
            lambda: _call([[], []], [[], []]),
            ValueError,
            "real_features must hold at least one feature map, got none",
        ),
        (
            lambda: _call(_zeros(3, 2), _zeros(3, 1)),
            ValueError,
            "real_features and fake_features must have the same shape, got [3, 2] and [3, 1]",
        ),
        (
            lambda: _call(_zeros(3), _zeros(3, device="meta")),
            RuntimeError,
            "real_features and fake_features must be on the same device, got cpu and meta",
        ),
        (
            lambda: _call(_zeros(3), _zeros(3), norm="l3"),
            ValueError,
            "norm must be 'l1' or 'l2', got 'l3'",
        ),
    )
]

BAD_CALLS = FEATURES + DISTRIBUTION_LOSSES + SCALAR_LOSSES + STATISTICS_LOSSES + LAYERS
