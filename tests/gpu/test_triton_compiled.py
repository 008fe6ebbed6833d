"""What the Triton kernels compile to, without running them: AMD GPUs, spills, and what is not recompiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget

from gankernels.triton import plans
from gpu.triton_compiled import (
    HEAVY,
    KERNELS,
    SHAPES,
    call_everything,
    compile_everything,
    compile_heavy,
    compile_shared_row,
)
from tools.ptxsim import triton_driver
from tools.ptxsim.loop_reductions import carried_reductions
from tools.ptxsim.offline_compile import compile_triton, cuda

pytestmark = pytest.mark.emulated

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int32: "i32",
}


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


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize(("dtype", "shape"), HEAVY, ids=lambda x: str(x).removeprefix("torch."))
def test_no_spills(dtype: torch.dtype, shape: tuple[int, ...], arch: int) -> None:
    triton_driver.install(arch=arch)
    compile_heavy(dtype, shape)


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_no_spills_where_programs_share_a_row(dtype: torch.dtype, arch: int) -> None:
    triton_driver.install(arch=arch)
    compile_shared_row(dtype)


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
@pytest.mark.parametrize("shape", SHAPES)
def test_no_loop_carries_a_reduction(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    triton_driver.install(arch=90)
    compile_everything(dtype, shape)
