"""Every operator and dtype on the GPU against float64, on whichever backend serves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract.common import dtype_name

import gankernels as gk
from gankernels.testing import DTYPES, OPERATORS, Case, check_operator, compare

ROWS = {operator.name: operator for operator in OPERATORS}


def test_kernels_serve_the_gpu() -> None:
    info = gk.build_info()
    assert info["backends"]["cuda"] in ("CUDA C++", "Triton"), info["reasons"]["cuda"]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", [o.name for o in OPERATORS])
def test_every_case(name: str, dtype: torch.dtype) -> None:
    check_operator(name, "cuda", [dtype])


LARGE = (
    Case((4096, 20)),
    Case((4096, 51), empty_bins=True),
    Case((64, 20, 32, 32)),
    Case((8192, 1024)),
    Case((2048, 8192)),
    Case((512, 32768)),
    Case((16, 262144)),
    Case((256, 1000), target="rows", mass=1.7),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.label)
@pytest.mark.parametrize(
    "name",
    ["softmax_kl", "softmax_kl_logits", "js_divergence", "realness_d_loss", "realness_g_loss"],
)
def test_sizes_that_fill_a_gpu(name: str, case: Case, dtype: torch.dtype) -> None:
    operator = ROWS[name]
    for options in operator.settings:
        arguments = operator.draw(replace(case, options=options), dtype, "cuda", "mean")
        compare(operator, arguments, operator.inputs(arguments))


@pytest.mark.parametrize("name", ["logistic_d_loss", "relativistic_d_loss", "hinge_d_loss"])
def test_large_batches_of_scalars(name: str) -> None:
    operator = ROWS[name]
    for count in (16384, 16385, 1 << 20):
        arguments = operator.draw(Case((count,)), torch.float32, "cuda", "mean")
        compare(operator, arguments, operator.inputs(arguments))


def test_more_than_two_to_the_31_elements() -> None:
    """Rows beyond 32-bit offsets have the values of the rows that they repeat."""
    rows, classes = (1 << 31) // 4096 + 8, 4096
    needed = 3 * rows * classes * 2
    if torch.cuda.get_device_properties(0).total_memory < 1.3 * needed:
        pytest.skip(f"needs {needed >> 30} GiB of GPU memory")
    few = torch.randn(8, classes, dtype=torch.bfloat16, device="cuda")
    logits = few.repeat(rows // 8, 1)
    anchor = torch.rand(classes, device="cuda")
    losses = gk.softmax_kl(logits, anchor, reduction="none")
    assert torch.equal(losses[-8:], losses[:8])
    _, (gradient,) = gk.value_and_grad(gk.softmax_kl)(logits, anchor, reduction="sum")
    assert torch.equal(gradient[-8:], gradient[:8])


def test_bitwise_repeatable() -> None:
    for shape in ((4096, 20), (1024, 1024), (64, 32768)):
        real, fake = (torch.randn(shape, device="cuda") for _ in range(2))
        anchor = torch.rand(shape[1], device="cuda")
        runs = []
        for _ in range(5):
            loss, gradients = gk.value_and_grad(gk.realness_d_loss)(real, fake, anchor, anchor)
            runs.append((loss, *gradients))
        for other in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
