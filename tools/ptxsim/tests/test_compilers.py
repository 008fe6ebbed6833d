"""Offline compilation, machine code, occupancy, roofline: facts that can be checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip("triton", minversion="3.4", reason="needs the triton wheel")

from tools.ptxsim import offline_compile, sass, simulator, toolchain  # noqa: E402
from tools.ptxsim.occupancy import occupancy  # noqa: E402
from tools.ptxsim.roofline import GPUS, Work, bound  # noqa: E402
from tools.ptxsim.tests.samples import triton_kernels as kernels  # noqa: E402
from tools.ptxsim.tests.samples.reference import ELEMENTS  # noqa: E402

pytestmark = pytest.mark.emulated

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
NEGATE = {"X": "*bf16", "Y": "*bf16", "n": "i32"}


def compiled(divisible: tuple[str, ...] = ("X", "Y", "n"), arch: int = 90) -> Any:
    target = offline_compile.cuda(arch)
    return offline_compile.compile_triton(
        kernels.negate, NEGATE, {"BLOCK": 1024}, target, divisible, **OPTIONS
    )


@pytest.mark.parametrize("arch", toolchain.ARCHITECTURES)
def test_compiled_for_a_gpu_that_is_not_there(arch: int) -> None:
    kernel = compiled(arch=arch)
    usage = toolchain.resource_usage(kernel.asm["cubin"])["negate"]
    counts = sass.count(toolchain.disassemble(kernel.asm["cubin"]))
    _, report = toolchain.assemble(kernel.asm["ptx"], arch)
    assert 8 <= usage["REG"] <= 64
    assert usage["LOCAL"] == usage["STACK"] == report["negate"]["spill_stores"] == 0
    assert abs(report["negate"]["regs"] - usage["REG"]) <= 8
    assert counts.memory == {"LDG.128": 1, "STG.128": 1}  # 1024 bf16 in 128 threads: 16 bytes each
    assert counts.load_bytes == 16
    assert not counts.loops


def test_without_known_divisibility_no_access_is_wide() -> None:
    memory = sass.count(toolchain.disassemble(compiled(()).asm["cubin"])).memory
    assert memory == {"LDG.16": 8, "STG.16": 8}


def test_ptx_runs_as_compiled() -> None:
    n, element = 2992, ELEMENTS["bf16"]
    x = element.encode(np.random.default_rng(0).normal(size=n))
    memory = simulator.Memory()
    source, target = memory.put(x, "x", readonly=True), memory.empty(n, np.uint16, "y")
    kernel = compiled()
    module = simulator.Module(kernel.asm["ptx"])
    scratch = [0] * (len(module.kernels["negate"].params) - 3)
    module.launch("negate", 3, 128, [source, target, n, *scratch], memory)
    np.testing.assert_array_equal(target.get(), x ^ np.uint16(0x8000))


@pytest.mark.parametrize("name", offline_compile.AMD_WAVEFRONT)
def test_compiled_for_amd(name: str) -> None:
    target = offline_compile.amd(name)
    kernel = offline_compile.compile_triton(
        kernels.negate, NEGATE, {"BLOCK": 1024}, target, ("X", "Y", "n"), **OPTIONS
    )
    assert "global_store_b" in kernel.asm["amdgcn"] or "global_store_d" in kernel.asm["amdgcn"]


def test_loops_are_found_in_machine_code() -> None:
    signature = {"P": "*bf16", "Q": "*bf16", "LOSS": "*fp32", "DP": "*bf16", "n": "i32"}
    signature |= {"stride": "i32", "scale": "fp32"}
    kernel = offline_compile.compile_triton(
        kernels.softmax_kl_online,
        signature,
        {"BLOCK": 1024},
        offline_compile.cuda(90),
        ("P", "Q", "DP", "stride", "n"),
        **OPTIONS,
    )
    counts = sass.count(toolchain.disassemble(kernel.asm["cubin"]))
    reading = [loop for loop in counts.loops if loop.memory["LDG.128"]]
    assert len(reading) == 2  # one pass for the sums, one for the gradient
    assert [loop.memory["STG.128"] for loop in reading] == [0, 1]
    assert all(loop.pipes["mufu"] for loop in reading)


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks", "limiter"),
    [
        (80, 128, 32, 0, 16, "threads"),
        (80, 256, 64, 0, 4, "registers"),  # 65536 / (64 * 256)
        (80, 128, 255, 0, 2, "registers"),  # 256 registers after rounding: 8 warps
        (90, 32, 16, 0, 32, "blocks"),
        (90, 128, 32, 100 << 10, 2, "shared"),  # 228 KiB / (100 + 1) KiB
        (80, 128, 32, 100 << 10, 1, "shared"),
        (86, 1024, 32, 0, 1, "threads"),  # 1536 threads
    ],
)
def test_occupancy(
    arch: int, threads: int, registers: int, shared: int, blocks: int, limiter: str
) -> None:
    found = occupancy(arch, threads, registers, shared)
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.warps == blocks * threads // 32


def test_roofline_of_a_copy_is_the_dram_rate() -> None:
    h100 = GPUS[1]
    copy = Work(bytes=32768, sectors=1024, instructions=64, pipes={}, loads_in_flight=32)
    found = bound(h100, copy, 8192, 256, occupancy(90, 256, 32))
    assert found.limiter == "dram"
    assert found.dram_share == 1.0
    assert found.seconds["dram"] == pytest.approx(8192 * 32768 / 3.35e12)


def test_roofline_names_what_limits() -> None:
    h100 = GPUS[1]
    heavy = Work(bytes=32, sectors=1, instructions=64, pipes={"mufu": 32.0}, loads_in_flight=16)
    found = bound(h100, heavy, 8192, 256, occupancy(90, 256, 32))
    # 64 warp instructions at 4 a clock take 16 clocks, 32 special functions at 16 a clock take 2.
    assert found.limiter == "issue"
    assert found.seconds["issue"] == pytest.approx(8192 * 16 / 132 / 1.75e9)
    assert found.seconds["mufu"] == pytest.approx(8192 * 2 / 132 / 1.75e9)
    assert found.dram_share == found.seconds["dram"] / found.seconds["issue"]
    starved = Work(bytes=32768, sectors=1024, instructions=8, pipes={}, loads_in_flight=2)
    found = bound(h100, starved, 8192, 256, occupancy(90, 256, 32))
    assert found.limited_by == "bytes in flight"
    # 2048 threads x 2 bytes of 3350 GB/s x 600 ns / 132
    assert found.dram_share == pytest.approx(4096 / (3350 * 600 / 132))


LOOPS = """
.L_x_0:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_1:
        /*0020*/                   LDL.64 R2, [R1] ;
        /*0030*/                   FADD R3, R2, R3 ;
        /*0040*/               @P0 BRA `(.L_x_1) ;
        /*0050*/                   STL [R1], R3 ;
        /*0060*/               @P1 BRA `(.L_x_0) ;
"""


def test_spills_are_found_in_the_loop_where_they_are() -> None:
    """Not those of the loop around it, which run once for all of its turns."""
    (loop,) = sass.count(LOOPS).innermost
    assert (loop.length, loop.local_share) == (3, 1 / 3)
    (loop,) = sass.count(LOOPS.replace("LDL.64 R2", "LDG.64 R2")).innermost
    assert loop.local_share == 0
