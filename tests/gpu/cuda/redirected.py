"""A pytest plugin: the CPU's operators are those of the library that GANKERNELS_CUDA_ON_CPU names."""

from __future__ import annotations

import os
from typing import Any

import torch

import gankernels  # noqa: F401  registers the schemas

KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)
OPERATORS = (
    "softmax_kl_value_and_grad",
    "softmax_kl_logits_value_and_grad",
    "realness_d_loss_value_and_grad",
    "realness_g_loss_value_and_grad",
    "scalar_loss_value_and_grad",
    "scale_gradient",
    "resample_forward",
    "resample_backward",
)
calls = 0
library = torch.library.Library("gankernels", "IMPL")


def redirect(name: str) -> None:
    overload = getattr(torch.ops.gankernels, name).default

    def call(*arguments: Any) -> Any:
        global calls
        calls += 1
        return overload.redispatch(KEY, *arguments)

    library.impl(name, call, "CPU", allow_override=True)


torch.ops.load_library(os.environ["GANKERNELS_CUDA_ON_CPU"])
for operator in OPERATORS:
    redirect(operator)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{calls} operators of the CUDA kernels were called")
