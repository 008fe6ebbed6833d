"""What the Triton kernels compile to, without running them: AMD GPUs, spills, and what is not recompiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget

from gankernels._scalar_run import terms_against_means, terms_of
from gankernels.triton import divergence, layers, operators, plans, relativistic, scalar
from tools.ptxsim import simulator, triton_driver
from tools.ptxsim.execution import Execution
from tools.ptxsim.loop_reductions import carried_reductions
from tools.ptxsim.offline_compile import compile_triton, cuda

pytestmark = pytest.mark.emulated

NONE, MEAN = 0, 1
TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int32: "i32",
}
KERNELS = (
    (divergence, "divergence_kernel"),
    (divergence, "softmax_pair_kernel"),
    (scalar, "term_sums_kernel"),
    (scalar, "term_rows_kernel"),
    (scalar, "scale_terms_kernel"),
    (relativistic, "relativistic_kernel"),
    (layers, "scale_kernel"),
    (layers, "resample_kernel"),
    (layers, "resample_backward_kernel"),
)


class Recorder:
    """Stands in for a kernel and keeps what it would be launched with."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: self.launches.append((self.kernel, args, kwargs))

    def warmup(self, *args: Any, **kwargs: Any) -> None:
        """Compiles nothing, so that nothing is known of registers."""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    for module, name in KERNELS:
        monkeypatch.setattr(module, name, Recorder(getattr(module, name), recorded))
    return recorded


def call_everything(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Each operator once, with all its gradients."""
    real, fake = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    rows, anchor = torch.rand(shape).to(dtype), torch.rand(shape[1])
    gradients = (True, True, True, 1.0)
    operators.realness_d_loss(real, fake, anchor, anchor, 1, MEAN, *gradients)
    operators.realness_g_loss(real, fake, None, anchor, 2, 1, MEAN, *gradients)
    operators.realness_g_loss(None, fake, rows, rows, 3, 1, MEAN, *gradients)
    operators.softmax_kl_logits(real, fake, 1, MEAN, *gradients)
    operators.softmax_kl(real, rows, 1, MEAN, *gradients)
    terms = terms_against_means("relativistic_d_loss", 1.0)
    operators.relativistic_loss(real, fake, *terms, MEAN, *gradients)
    logistic = terms_of("logistic_d_loss", 0.9, 0.0)
    weight = torch.rand(shape).to(torch.float64 if dtype == torch.float64 else torch.float32)
    tensors, places = (
        (real, fake, weight, anchor.to(dtype)),
        (0, -1, -1, 0, 1, -1, 2, 0, 3, -1, -1, 1),
    )
    for reduction in (NONE, MEAN):
        wanted = (0, 1, 2)
        operators.scalar_loss(
            tensors,
            "r,f,w,a",
            places,
            (*logistic, *logistic[:5]),
            1.0,
            reduction,
            wanted,
            True,
            1.0,
        )
    operators.scale_terms((real, fake), (torch.tensor(1.0), weight), (3, -1))
    operators.scale_gradients(real, fake, torch.tensor(1.0), 1, -1, -1)
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    noise = torch.randn(shape[0], shape[1] // 2, *shape[2:]).to(accumulation)
    z = operators.resample_forward(real, noise, 1)
    operators.resample_backward(z, real, noise if dtype.itemsize == 2 else z, 1)


def compile_for(target: GPUTarget, kernel: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """As the launcher would: integers that are 1 or multiples of 16 are known to the compiler."""
    names = kernel.arg_names
    options = {k: v for k, v in kwargs.items() if k not in names}
    constants = {k: v for k, v in kwargs.items() if k in names}
    divisible: list[Any] = []

    def type_of(at: Any, value: Any, specialize: bool) -> Any:
        if isinstance(value, tuple):
            return tuple(type_of((at, i), x, True) for i, x in enumerate(value))
        if isinstance(value, torch.Tensor):
            divisible.append(at)
            return f"*{TYPES[value.dtype]}"
        if isinstance(value, float):
            return "fp64"
        if value == 1 and specialize:
            constants[at] = 1
            return "constexpr"
        if value % 16 == 0 and specialize:
            divisible.append(at)
        return "i32"

    signature = {
        parameter.name: type_of(parameter.name, value, not parameter.do_not_specialize)
        for parameter, value in zip(kernel.params, args, strict=False)
    }
    return compile_triton(kernel, signature, constants, target, tuple(divisible), **options)


@pytest.mark.skipif(
    plans.RELEASE < (3, 5) and knobs.amd.lld_path is None,
    reason="Triton before 3.5 brings no linker for AMD: set TRITON_HIP_LLD_PATH to ld.lld",
)
@pytest.mark.parametrize(
    ("arch", "warp"), [("gfx942", 64), ("gfx1100", 32)], ids=["gfx942", "gfx1100"]
)
@pytest.mark.parametrize("classes", [20, 9000])
def test_amd(arch: str, warp: int, classes: int, launches: list[Any]) -> None:
    """Every kernel compiles for AMD's data centre and consumer GPUs, by the same source."""
    call_everything(torch.bfloat16, (40, classes))
    assert len({kernel.__name__ for kernel, *_ in launches}) == len(KERNELS)
    for kernel, args, kwargs in launches:
        compiled = compile_for(GPUTarget("hip", arch, warp), kernel, args, kwargs)
        assert len(compiled.asm["hsaco"]) > 1000
        assert "scratch_store" not in compiled.asm["amdgcn"]  # no spills


@pytest.fixture
def compiled() -> Iterator[list[Execution]]:
    """The launches of a test, compiled but not run."""
    found: list[Execution] = []
    original = simulator.Module.launch
    nothing = simulator.Result.__new__(simulator.Result)
    simulator.Module.launch = lambda *args, **kwargs: nothing  # type: ignore[method-assign]
    triton_driver.listeners.append(found.append)
    try:
        yield found
    finally:
        triton_driver.listeners.remove(found.append)
        simulator.Module.launch = original  # type: ignore[method-assign]


# The longest rows that stay in registers, with and without a class beyond the last; the widest tiles
# of rows side by side; rows that are streamed.
HEAVY = [
    (torch.float32, (2, 8192)),
    (torch.float32, (2, 8188)),
    (torch.float32, (2, 4095)),
    (torch.float32, (2, 8191)),
    (torch.float32, (1, 32, 8, 8)),
    (torch.float32, (1, 64, 8, 8)),
    (torch.float32, (1, 128, 8, 8)),
    (torch.float32, (1, 512, 4, 4)),
    (torch.bfloat16, (2, 32768)),
    (torch.float64, (2, 1024)),
    (torch.float64, (2, 2048)),
    (torch.float64, (2, 3001)),
    (torch.float64, (2, 5000)),
    (torch.float64, (1, 600, 8, 8)),
]
# Bytes: the ptxas of earlier releases keeps up to three values of a loop in local memory with registers left.
PARKED = 0 if plans.RELEASE >= (3, 9) else 24


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize(("dtype", "shape"), HEAVY, ids=lambda x: str(x).removeprefix("torch."))
def test_no_spills(
    dtype: torch.dtype, shape: tuple[int, ...], arch: int, compiled: list[Execution]
) -> None:
    triton_driver.install(arch=arch)
    real, fake = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
    anchor, rows = torch.zeros(shape[1]), torch.zeros(shape)
    gradients = (1, MEAN, True, True, True, 1.0)
    operators.realness_d_loss(real, fake, anchor, anchor, *gradients)
    operators.realness_g_loss(real, fake, None, anchor, 2, *gradients)
    operators.realness_g_loss(None, fake, rows, rows, 3, *gradients)
    operators.softmax_kl_logits(real, fake, *gradients)
    operators.softmax_kl(fake, rows.to(dtype), *gradients)
    assert len(compiled) == 5
    for execution in compiled:
        assert carried_reductions(execution.ir) == []
        left = 65536 // execution.threads > execution.registers < 255
        assert execution.spills <= (PARKED if left else 0), (
            execution.entry,
            execution.registers,
            execution.spills,
        )


@triton.jit
def carrying_kernel(x, out, count, BLOCK: tl.constexpr):
    top = tl.full([1], -float("inf"), tl.float32)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        tile = tl.load(x + i, mask=i < count, other=0.0)
        top = tl.maximum(top, tl.max(tile, 0))
    tl.store(out + tl.arange(0, 1), top)


@triton.jit
def lanewise_kernel(x, out, count, BLOCK: tl.constexpr):
    tops = tl.full([BLOCK], -float("inf"), tl.float32)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        tops = tl.maximum(tops, tl.load(x + i, mask=i < count, other=0.0))
    tl.store(out, tl.max(tops, 0))


def test_the_search_for_carried_reductions_finds_one() -> None:
    signature = {"x": "*fp32", "out": "*fp32", "count": "i32"}
    found = [
        carried_reductions(compile_triton(kernel, signature, {"BLOCK": 1024}, cuda(90)).asm["ttir"])
        for kernel in (carrying_kernel, lanewise_kernel)
    ]
    assert [len(reductions) for reductions in found] == [1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 20), (4, 9000), (4, 20, 8, 8), (4, 600, 8, 8)])
def test_no_loop_carries_a_reduction(
    dtype: torch.dtype, shape: tuple[int, ...], compiled: list[Execution]
) -> None:
    """Triton before 3.9 stops at such a loop, or gives wrong numbers."""
    triton_driver.install(arch=90)
    call_everything(dtype, shape)
    assert {execution.entry for execution in compiled} == {name for _, name in KERNELS}
    for execution in compiled:
        assert carried_reductions(execution.ir) == [], execution.entry
