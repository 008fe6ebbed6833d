"""A module of PTX and the launch of its kernels."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .machine import Machine, Options, Shape3
from .memory import Memory
from .parser import Kernel, Program
from .races import GlobalLog
from .scheduler import run
from .types import Array

Extent = int | Sequence[int]

# Called with (module, kernel name) after every launch that ended without a fault.
OBSERVERS: list[Callable[[Module, str], None]] = []


@dataclasses.dataclass
class Result:
    """Counts of one launch.

    Attributes:
        kernel: what ran.
        stats: by kind of traffic.
        ops: warp instructions by opcode.
        executed: by how many warps, for each instruction of the kernel.
        grid: blocks.
    """

    kernel: Kernel
    stats: collections.Counter[str]
    ops: collections.Counter[str]
    executed: Array
    grid: Shape3


class Module(Program):
    """PTX that can be launched.

    Example:
        memory = Memory()
        x = memory.put(array, "x", readonly=True)
        y = memory.empty(n, np.float32, "y")
        result = Module(ptx).launch("kernel", grid=4, block=128, args=[x, y, n], mem=memory)
        y.get(), result.stats["global_load_bytes"]

    Attributes:
        element_types: what the kernels' pointers point to, where whoever loaded the module knows it.
    """

    element_types: tuple[str, ...] = ()

    def launch(
        self,
        name: str,
        grid: Extent,
        block: Extent,
        args: Sequence[Any],
        mem: Memory,
        shared: int = 0,
        chunk_threads: int = 1 << 16,
        **options: Any,
    ) -> Result:
        """Run a kernel to its end.

        Args:
            name: the entry.
            grid: blocks.
            block: threads of a block.
            args: one per parameter: a Buffer, a number or bytes.
            mem: the memory that the buffers are in.
            shared: bytes of dynamic shared memory.
            chunk_threads: threads that run together; the blocks of one chunk run before those of the next.
            options: see Options.

        Raises:
            KernelFault: the kernel did something forbidden.
            Unsupported: the PTX uses something unknown.
        """
        kernel, settings = self.kernels[name], Options(**options)
        grid3, block3 = extent(grid), extent(block)
        block_threads, blocks = int(np.prod(block3)), int(np.prod(grid3))
        if kernel.max_threads is not None and block_threads > kernel.max_threads:
            raise ValueError(
                f"{name} is bound to {kernel.max_threads} threads, got {block_threads}"
            )
        symbols = {
            symbol: mem.put(np.zeros(size, np.uint8) if initial is None else initial, symbol).addr
            for symbol, (size, _, initial) in self.globals.memory.items()
        }
        log = GlobalLog(len(mem.heap), block_threads) if settings.races else None
        at_once = max(1, chunk_threads // max(block_threads, 1))
        never = np.zeros(len(kernel.code), np.int64)
        result = Result(kernel, collections.Counter(), collections.Counter(), never, grid3)
        for first in range(0, blocks, at_once):
            chunk = range(first, min(blocks, first + at_once))
            machine = Machine(
                self, kernel, grid3, block3, chunk, args, mem, shared, symbols, log, settings
            )
            with np.errstate(all="ignore"):  # a kernel may overflow and divide by zero
                run(machine)
            result.stats.update(machine.stats)
            result.ops.update(machine.ops)
            result.executed += machine.executed
        for observer in OBSERVERS:
            observer(self, name)
        return result


def extent(size: Extent) -> Shape3:
    """A CUDA dim3 of an integer or a sequence."""
    given = (int(size),) if np.isscalar(size) else tuple(int(x) for x in size)  # type: ignore[arg-type, union-attr]
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z
