"""Somebody else's inputs: the samples that PyTorch tries its own losses with, for losses that are like them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gankernels.testing import DTYPES, OPERATORS, Arguments, compare
from tools.torture.attack import Found

ROWS = {operator.name: operator for operator in OPERATORS}
SOURCES = ("kl_div", "cross_entropy", "binary_cross_entropy_with_logits", "softplus")


def tensors(name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """What PyTorch tries a function with."""
    from torch.testing._internal.common_methods_invocations import op_db  # which takes two seconds

    for info in op_db:
        if info.name == f"nn.functional.{name}" and dtype in info.dtypes:
            for sample in info.sample_inputs("cpu", dtype):
                yield from (x for x in (sample.input, *sample.args) if isinstance(x, Tensor))


def calls(x: Tensor) -> Iterator[tuple[str, Arguments]]:
    """Losses of a tensor as logits, of any shape or with classes in any of its dimensions."""
    y = x.flip(0) if x.ndim else x.clone()
    for reduction in ("mean", "sum", "none"):
        more = {"reduction": reduction}
        yield "nonsaturating_g_loss", {"fake_logits": x, **more}
        yield "logistic_d_loss", {"real_logits": x, "fake_logits": y, **more}
        for dim in range(x.ndim if x.numel() else 0):
            target = y.double().softmax(dim).to(x.dtype)
            yield "softmax_kl", {"logits": x, "target": target, "dim": dim, **more}
            yield "softmax_kl_logits", {"p_logits": x, "q_logits": y, "dim": dim, **more}


def run(share: float) -> Found:
    found = Found()
    step = max(1, round(1 / share))
    given = (x for name in SOURCES for dtype in DTYPES for x in tensors(name, dtype))
    for i, x in enumerate(given):
        if i % step or not x.is_floating_point():
            continue
        for name, arguments in calls(x.detach()):
            operator = ROWS[name]

            def check(operator=operator, arguments=arguments) -> None:  # type: ignore[no-untyped-def]
                compare(operator, arguments, operator.inputs(arguments))

            found.attempt(f"{name} of {x.dtype} {list(x.shape)}", check)
    return found
