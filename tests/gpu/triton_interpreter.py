"""Triton's interpreter for kernels that were not made to be interpreted: switched on and off in one process.

``TRITON_INTERPRET=1`` is read where kernels are defined, and what the interpreter changes in
``triton.language`` outlives a launch. Here one scope holds all of it:

    with interpreted():
        kernel[grid](cpu_tensor, ...)
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

from gankernels.triton import replays
from tools.ptxsim import interpreter_bf16

launches = 0


@cache
def rewritten(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its comparisons and assignments as the interpreter wants them.

    In a namespace of its own: Triton's rewriter adds to that of the kernel's module.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    tree = ast.fix_missing_locations(interpreter.FunctionRewriter.ast_transformer.visit(tree))
    namespace = {**vars(interpreter), **function.__globals__}
    exec(compile(tree, function.__code__.co_filename, "exec"), namespace)
    return namespace[definition.name]  # type: ignore[no-any-return]


def run(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """In place of ``JITFunction.run``: every program of the grid, one after the other."""
    global launches
    if warmup:  # nothing is compiled
        return
    launches += 1
    names = kernel.arg_names
    fixed = [p.name for p in kernel.params if p.is_constexpr]
    given = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
    values = {n: v if n in fixed else interpreter._implicit_cvt(v) for n, v in given.items()}
    function, builder = rewritten(kernel.fn), interpreter.interpreter_builder
    extents = (*grid, 1, 1)[:3]
    builder.set_grid_dim(*extents)
    with np.errstate(all="ignore"):  # infinities and NaNs are results like others
        for place in itertools.product(*(range(n) for n in extents)):
            builder.set_grid_idx(*place)
            function(**values)


def remembered(np_dtype: Callable[[Any], np.dtype[Any]]) -> Callable[[Any], np.dtype[Any]]:
    """``np_dtype``, asked once for every scalar type: it makes a table at every call."""
    scalars = cache(np_dtype)
    return lambda of: scalars(of) if type(of) is tl.dtype else np_dtype(of)


class Interpreter:
    """Makes launches of Triton kernels interpreted ones, while it is on."""

    def __init__(self) -> None:
        self.scope: Any = None

    def switch_on(self) -> None:
        if not hasattr(interpreter, "_LangPatchScope"):
            pytest.skip("Triton before 3.6 does not undo what its interpreter changes")
        replays.forget()
        interpreter_bf16.install()
        languages = types.FunctionType((lambda: None).__code__, {"tl": tl, "core": tl.core})
        self.scope = interpreter._patch_lang(languages)
        builder = interpreter.interpreter_builder
        # A third of the time, for offsets that come nowhere near 2**31 here: large ones are emulated.
        options = dataclasses.replace(builder.options, sanitize_overflow=False)
        self.scope.set_attr(builder, "options", options)
        self.scope.set_attr(interpreter, "_get_np_dtype", remembered(interpreter._get_np_dtype))
        # That of Triton 3.6 asks NumPy for the number of an array of one element, which 2.4 refuses.
        self.scope.set_attr(tl.tensor, "__index__", lambda x: int(x.handle.data.item()))
        self.scope.set_attr(JITFunction, "run", run)
        self.scope.set_attr(JITFunction, "__call__", lambda f, *a, **k: rewritten(f.fn)(*a, **k))

    def switch_off(self) -> None:
        replays.forget()
        self.scope.restore()
