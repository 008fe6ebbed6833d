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
    signature: Mapping[str, Any],
    constexprs: Mapping[Any, Any],
    target: GPUTarget,
    divisible: Iterable[Any] = (),
    **options: Any,
) -> Any:
    """Compile a ``@triton.jit`` function.

    Args:
        kernel: the function.
        signature: argument types: ``*fp32``, ``*bf16``, ``i32``, ``fp32`` ..., or a tuple of them; may name more
            than the kernel has.
        constexprs: values of the constexpr arguments; of an item of a tuple by ``(name, index)``.
        target: of ``cuda`` or ``amd``.
        divisible: arguments, or items of tuples by ``(name, index)``, known to be multiples of 16, as the
            launcher finds out by itself for aligned pointers and sizes; without it no load is wide.
        options: num_warps, enable_fp_fusion ...

    Returns:
        Triton's compiled kernel: ``asm["ptx"]``, ``asm["cubin"]`` or ``asm["amdgcn"]``, and ``metadata``.
    """
    names = list(kernel.arg_names)

    def path(of: Any) -> tuple[int, ...]:
        name, *index = of if isinstance(of, tuple) else (of,)
        return (names.index(name), *index)

    types = {n: "constexpr" if n in constexprs else signature[n] for n in names}
    attributes = {path(n): [["tt.divisibility", 16]] for n in divisible}
    constants = {path(n): value for n, value in constexprs.items()}
    source = ASTSource(kernel, types, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=options)
