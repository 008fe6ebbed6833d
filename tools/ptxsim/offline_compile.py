"""Triton kernels compiled for GPUs that are not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

if os.environ.get("TRITON_INTERPRET") == "1":
    raise RuntimeError("offline_compile must run in its own process, without TRITON_INTERPRET")

# An AMD GPU's wavefront: 64 lanes on CDNA, 32 on RDNA.
AMD_WAVEFRONT = {"gfx942": 64, "gfx1100": 32}


def cuda(arch: int) -> GPUTarget:
    return GPUTarget("cuda", arch, 32)


def amd(name: str) -> GPUTarget:
    return GPUTarget("hip", name, AMD_WAVEFRONT[name])


def compile_triton(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    target: GPUTarget,
    divisible: Iterable[str] = (),
    **options: Any,
) -> Any:
    """Compile a ``@triton.jit`` function.

    Args:
        kernel: the function.
        signature: argument types: ``*fp32``, ``*bf16``, ``i32``, ``fp32`` ...; may name more than the kernel has.
        constexprs: values of the constexpr arguments.
        target: of ``cuda`` or ``amd``.
        divisible: arguments known to be multiples of 16, as the launcher finds out by itself for aligned
            pointers and sizes; without it no load is wide.
        options: num_warps, enable_fp_fusion ...

    Returns:
        Triton's compiled kernel: ``asm["ptx"]``, ``asm["cubin"]`` or ``asm["amdgcn"]``, and ``metadata``.
    """
    names = list(kernel.arg_names)
    types = {n: "constexpr" if n in constexprs else signature[n] for n in names}
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in divisible}
    source = ASTSource(kernel, types, constexprs=dict(constexprs), attrs=attributes)
    return triton.compile(source, target=target, options=options)
