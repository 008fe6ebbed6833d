"""bf16 under TRITON_INTERPRET=1.

Triton's interpreter (3.8.0, 3.9.0) keeps bf16 as uint16: casts to it truncate, and arithmetic, negation and
comparison work on the integer bits. ``install()`` makes casts round to nearest even and bf16 go through float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from .simulator.types import Array, bf16_to_f32, f32_to_bf16

INSTALLED = "_bf16_repaired"
SIGN, MAGNITUDE = np.uint16(0x8000), np.uint16(0x7FFF)


def widened(bits: Array) -> Array:
    return bf16_to_f32(np.asarray(bits, np.uint16))


def handle(value: Array) -> Any:
    """A result of bf16 operands: a truth value, or bf16 again."""
    if value.dtype == np.bool_:
        return interpreter.TensorHandle(value, tl.bfloat16)
    return interpreter.TensorHandle(f32_to_bf16(value), tl.bfloat16)


def install() -> None:
    builder = interpreter.InterpreterBuilder
    if getattr(builder, INSTALLED, False):
        return
    cast, binary, unary = builder.cast_impl, builder.binary_op, builder.unary_op

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        from_, to = source.dtype.scalar, target.scalar
        if from_ == tl.bfloat16 and to != tl.bfloat16:
            wide = interpreter.TensorHandle(widened(source.data), tl.float32)
            return wide if to == tl.float32 else cast(self, wide, target)
        if to == tl.bfloat16 and from_ != tl.bfloat16:
            narrow = f32_to_bf16(np.asarray(source.data).astype(np.float32))
            return interpreter.TensorHandle(narrow, tl.bfloat16)
        return cast(self, source, target)

    def binary_op(self: Any, left: Any, right: Any, operation: Callable[..., Array]) -> Any:
        if left.dtype.scalar == tl.bfloat16 and right.dtype.scalar == tl.bfloat16:
            return handle(operation(widened(left.data), widened(right.data)))
        return binary(self, left, right, operation)

    def unary_op(self: Any, operand: Any, operation: Callable[..., Array]) -> Any:
        if operand.dtype.scalar != tl.bfloat16:
            return unary(self, operand, operation)
        if operation is np.negative:
            return interpreter.TensorHandle(np.asarray(operand.data ^ SIGN), tl.bfloat16)
        if operation in (np.abs, np.fabs):
            return interpreter.TensorHandle(np.asarray(operand.data & MAGNITUDE), tl.bfloat16)
        return handle(operation(widened(operand.data)))

    builder.cast_impl, builder.binary_op, builder.unary_op = cast_impl, binary_op, unary_op
    setattr(builder, INSTALLED, True)
