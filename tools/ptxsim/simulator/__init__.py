"""A functional simulator of the PTX that nvcc and Triton emit (sm_80, sm_90, sm_100), in numpy.

It computes what a kernel computes and reports as KernelFault what compute-sanitizer would: accesses out of
bounds, misaligned, of uninitialised or read-only memory; data races in shared memory (between barriers) and
global memory (between threads of one launch, with release and acquire understood); barriers and warp
instructions whose partners never come. It knows nothing of time. TMA, mbarrier, wgmma, clusters and device calls
are Unsupported.

parser -> machine (state of the threads) -> scheduler (who runs) -> instructions (what they do), with access
(checks and traffic), races and ordering beside them; launch is the way in.
"""

from __future__ import annotations

from .errors import KernelFault, Unsupported
from .launch import OBSERVERS, Module, Result
from .memory import GLOBAL_BASE, Buffer, Memory
from .types import bf16_to_f32, f32_to_bf16, fma32

__all__ = [
    "GLOBAL_BASE",
    "OBSERVERS",
    "Buffer",
    "KernelFault",
    "Memory",
    "Module",
    "Result",
    "Unsupported",
    "bf16_to_f32",
    "f32_to_bf16",
    "fma32",
]
