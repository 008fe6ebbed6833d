"""The threads of some blocks: special registers, registers, parameters, shared and local memory."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors import KernelFault, Unsupported
from .memory import PARAMETER_WINDOW, POISON, Buffer, Memory, align
from .parser import Instruction, Kernel, Operand, Parameter, Program
from .races import GlobalLog, SharedLog
from .types import (
    FLOAT,
    INTEGER_TYPES,
    SIGNED,
    UNSIGNED,
    Array,
    bf16_to_f32,
    f32_to_bf16,
    integer,
    width,
)

UNSET = 0xDEADBEEFDEADBEEF  # what a register holds before anything was written
# The types whose values are their registers' bits, under another name.
VIEWS = {t: np.dtype(integer(t)) for t in INTEGER_TYPES}
VIEWS |= {f"f{bits}": np.dtype(kind) for bits, kind in FLOAT.items()}
SHADER_CLUSTERS = 132  # for %smid alone

Shape3 = tuple[int, int, int]


@dataclasses.dataclass
class Options:
    """What a launch checks and how its threads take turns.

    Attributes:
        races: report data races in shared and global memory.
        initcheck: report reads of memory that nobody wrote.
        max_steps: instructions of one chunk of blocks before a loop counts as endless.
        approx_noise: relative error added to ``.approx`` results, uniform in +- this.
        seed: of that error, and of the order of the lanes of an atomic.
        schedule: ``lockstep`` (all warps together), or one warp of each block at a time to its next barrier, in
            ascending (``warps``) or descending (``warps_reversed``) order.
    """

    races: bool = True
    initcheck: bool = True
    max_steps: int = 2_000_000
    approx_noise: float = 0.0
    seed: int = 0
    schedule: str = "lockstep"

    def __post_init__(self) -> None:
        if self.schedule not in ("lockstep", "warps", "warps_reversed"):
            raise ValueError(f"schedule: {self.schedule!r}")


class SharedMemory:
    """The shared memory of every block, with the log of who touched which byte."""

    def __init__(self, kernel: Kernel, program: Program, dynamic: int, blocks: int) -> None:
        self.symbols: dict[str, int] = {}
        end = 0
        for name, (size, alignment) in {**program.globals.shared, **kernel.shared}.items():
            end = align(end, alignment)
            self.symbols[name] = end
            end += size
        end = align(end, 16)  # CUDA aligns dynamic shared memory to 16 bytes
        self.symbols.update(dict.fromkeys(program.globals.dynamic_shared, end))
        self.size = end + dynamic
        allocated = max(self.size, 1)
        self.data = np.full((blocks, allocated), POISON, np.uint8)
        self.initialised = np.zeros((blocks, allocated), bool)
        self.log = SharedLog(blocks, allocated)


class LocalMemory:
    """The stack of every thread."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        self.symbols: dict[str, int] = {}
        end = 0
        for name, (size, alignment) in kernel.local.items():
            end = align(end, alignment)
            self.symbols[name] = end
            end += size
        self.size = end
        self.data = np.zeros((threads, max(end, 1)), np.uint8)


class Machine:
    """A chunk of blocks in execution. One array element per thread; ``active`` selects those that take part.

    ``active`` is a slice over all threads or an ascending index array; ``count`` is its length.
    """

    def __init__(
        self,
        program: Program,
        kernel: Kernel,
        grid: Shape3,
        block: Shape3,
        blocks: range,
        args: Sequence[Any],
        memory: Memory,
        dynamic_shared: int,
        symbols: dict[str, int],
        log: GlobalLog | None,
        options: Options,
    ) -> None:
        self.program, self.kernel, self.memory = program, kernel, memory
        self.options, self.log = options, log
        self.rng = np.random.default_rng(options.seed)
        self.block_threads = block[0] * block[1] * block[2]
        self.padded_threads = padded = align(self.block_threads, 32)
        self.threads = len(blocks) * padded
        every = np.arange(self.threads)
        self.tid, self.block = every % padded, every // padded
        self.lane, self.warp, self.warps = self.tid % 32, every // 32, self.threads // 32
        self.block_id = np.repeat(np.array(list(blocks)), padded)
        self.gtid = self.block_id.astype(np.int64) * self.block_threads + self.tid
        self.special = special_registers(grid, block, self.tid, self.lane, self.block_id)
        self.registers: dict[str, Array] = {}
        self.exists = self.tid < self.block_threads
        self.live = self.exists.copy()
        self.pc = np.zeros(self.threads, np.int64)
        self.at_barrier = np.zeros(self.threads, bool)
        self.parked = np.zeros(self.threads, bool)  # waiting for the partners of a warp instruction
        self.epoch = np.zeros(self.threads, np.int64)  # barriers passed
        self.warp_epoch = np.zeros(self.threads, np.int64)  # barriers and warp instructions passed
        self.warp_barrier_step = np.zeros(self.threads, np.int64)  # of the last bar.warp.sync
        self.params = parameter_bytes(kernel, args)
        self.param_space = parameter_space(kernel, self.params)
        self.symbols = symbols
        self.shared = SharedMemory(kernel, program, dynamic_shared, len(blocks))
        self.local = LocalMemory(kernel, self.threads)
        self.stats: collections.Counter[str] = collections.Counter()
        self.ops: collections.Counter[str] = collections.Counter()
        self.executed = np.zeros(len(kernel.code), np.int64)  # by how many warps, per instruction
        self.active: slice | Array = slice(None)
        self.count = self.threads
        self.active_warps = self.warps
        self.stored = np.zeros((0, 0), np.uint8)  # the bytes that the current store writes

    # ---- who is active
    def select(self, mask: Array) -> None:
        """Make the threads of a boolean mask the active ones."""
        self.count = int(np.count_nonzero(mask))
        self.active = slice(None) if self.count == self.threads else np.flatnonzero(mask)
        self.active_warps = count_runs(self.warp[self.active])

    @contextmanager
    def only(self, mask: Array) -> Iterator[None]:
        """Some of the active threads for a while."""
        before = self.active, self.count, self.active_warps
        self.select(mask)
        try:
            yield
        finally:
            self.active, self.count, self.active_warps = before

    @property
    def active_threads(self) -> Array:
        return np.arange(self.threads)[self.active]

    def tally(self, ins: Instruction) -> None:
        """Count the instruction for every active warp."""
        self.executed[ins.index] += self.active_warps
        self.ops[ins.name] += self.active_warps
        self.stats["warp_instrs"] += self.active_warps
        self.stats["thread_instrs"] += self.count

    # ---- faults
    def fault(self, kind: str, ins: Instruction, thread: int, detail: str = "") -> None:
        """Raise KernelFault naming the instruction, its source line, block and thread."""
        source = ""
        if ins.loc:
            source = f" [{self.program.files.get(ins.loc[0], '?')}:{ins.loc[1]}:{ins.loc[2]}]"
        block = tuple(int(self.special["%ctaid." + axis][thread]) for axis in "xyz")
        tid = int(self.tid[thread])
        raise KernelFault(
            f"{kind}: {self.kernel.name}: `{ins.text}`{source} block {block} "
            f"thread {tid} (warp {tid // 32} lane {tid % 32}) {detail}"
        )

    # ---- operands
    def raw(self, operand: Operand, bits: int) -> Array:
        """The operand's bits, one unsigned integer per active thread."""
        kind, value = operand[0], operand[1]
        if kind == "reg":
            register = self.registers.get(value)
            if register is None and value in self.kernel.regs:
                register = self._register(value)
            if register is None:
                register = self.special.get(value)
            if register is None:
                return np.full(self.count, self.symbol(value), UNSIGNED[bits])
            found = register[self.active]
            return found if found.dtype == UNSIGNED[bits] else found.astype(UNSIGNED[bits])
        if kind == "int":
            return np.full(self.count, value & ((1 << bits) - 1), UNSIGNED[bits])
        if kind == "f32bits" and bits == 64:
            as_double = np.array(value, np.uint32).view(np.float32).astype(np.float64)
            return np.full(self.count, as_double).view(np.uint64)
        if kind == "f32bits":
            return np.full(self.count, value, np.uint32)
        if kind == "f64bits" and bits == 32:
            as_single = np.array(value, np.uint64).view(np.float64).astype(np.float32)
            return np.full(self.count, as_single).view(np.uint32)
        if kind == "f64bits":
            return np.full(self.count, value, np.uint64)
        if kind == "float":
            return np.full(self.count, value, FLOAT[bits]).view(UNSIGNED[bits])
        raise Unsupported(f"operand {operand}")

    def symbol(self, name: str) -> int:
        for symbols in (self.shared.symbols, self.symbols, self.local.symbols):
            if name in symbols:
                return symbols[name]
        for parameter in self.kernel.params:
            if parameter.name == name:
                return PARAMETER_WINDOW + parameter.offset
        raise Unsupported(f"symbol {name}")

    def predicate(self, operand: Operand) -> Array:
        if operand[0] == "not":
            return ~self.predicate(("reg", operand[1]))
        if operand[0] == "int":
            return np.full(self.count, bool(operand[1]))
        value = self.registers.get(operand[1])
        return np.zeros(self.count, bool) if value is None else value[self.active]

    def get(self, operand: Operand, type_: str) -> Array:
        """The operand as numbers of a PTX type; bf16 arrives as float32, packed types with a trailing 2."""
        if type_ == "pred":
            return self.predicate(operand)
        bits = width(type_)
        if operand[0] == "reg" and type_ in VIEWS:  # nearly always
            return self.raw(operand, bits).view(VIEWS[type_])
        if operand[0] == "vec":
            part = bits // len(operand[1])
            value = np.zeros(self.count, UNSIGNED[bits])
            for i, element in enumerate(operand[1]):
                value |= self.raw(element, part).astype(UNSIGNED[bits]) << UNSIGNED[bits](i * part)
        else:
            value = self.raw(operand, bits)
        if type_ == "bf16":
            return bf16_to_f32(value)
        if type_ == "bf16x2":
            return bf16_to_f32(value.view(np.uint16)).reshape(-1, 2)
        if type_[0] in "bu":
            return value
        if type_[0] == "s":
            return value.view(SIGNED[bits])
        if type_ in ("f16", "f32", "f64"):
            return value.view(FLOAT[bits])
        if type_ in ("f16x2", "f32x2"):
            return value.view(FLOAT[bits // 2]).reshape(-1, 2)
        raise Unsupported(type_)

    def put(self, operand: Operand, type_: str, value: Array) -> None:
        """Write the active threads' values of a PTX type to a register or a vector of registers."""
        if operand[0] == "sink":
            return
        if operand[0] == "vec":
            self._put_vector(operand[1], type_, value)
            return
        name = operand[1]
        bits = width(self.kernel.regs[name])
        simple = VIEWS.get(type_)
        if simple is not None and value.dtype == simple and value.itemsize * 8 == bits:
            value = value.view(UNSIGNED[bits])
        else:
            value = np.asarray(value, bool) if bits == 1 else register_bits(value, type_, bits)
        assert value.shape == (self.count,), (name, type_, value.shape)
        if isinstance(self.active, slice):
            self.registers[name] = value
            return
        register = self.registers.get(name)
        if register is None:
            register = self._register(name)
        elif not register.flags.owndata or not register.flags.writeable:
            register = self.registers[name] = register.copy()
        register[self.active] = value

    def _put_vector(self, elements: list[Operand], type_: str, value: Array) -> None:
        bits = width(type_)
        part = bits // len(elements)
        unsigned, low = UNSIGNED[bits], UNSIGNED[bits]((1 << part) - 1)
        whole = value if value.dtype == unsigned else np.ascontiguousarray(value).view(unsigned)
        for i, element in enumerate(elements):
            piece = ((whole >> unsigned(i * part)) & low).astype(UNSIGNED[part])
            self.put(element, f"b{part}", piece)

    def _register(self, name: str) -> Array:
        value = self.registers.get(name)
        if value is None:
            bits = width(self.kernel.regs[name])
            unset = 0 if bits == 1 else UNSET & ((1 << bits) - 1)
            value = np.full(self.threads, unset, bool if bits == 1 else UNSIGNED[bits])
            self.registers[name] = value
        return value


def count_runs(ascending: Array) -> int:
    """How many different values an ascending array has."""
    return int(np.count_nonzero(ascending[1:] != ascending[:-1])) + (len(ascending) > 0)


def run_starts(ascending: Array) -> Array:
    """Where each different value of an ascending array begins."""
    changes = np.empty(len(ascending), bool)
    changes[:1] = True
    np.not_equal(ascending[1:], ascending[:-1], out=changes[1:])
    return np.flatnonzero(changes)


def register_bits(value: Array, type_: str, bits: int) -> Array:
    """Values of a PTX type as the contents of registers of so many bits."""
    if type_ == "bf16":
        value = f32_to_bf16(value)
    elif type_ == "bf16x2":
        value = np.ascontiguousarray(f32_to_bf16(value)).view(np.uint32).reshape(-1)
    elif type_ == "f32x2":
        value = np.ascontiguousarray(value, np.float32).view(np.uint64).reshape(-1)
    elif type_ == "f16x2":
        value = np.ascontiguousarray(value, np.float16).view(np.uint32).reshape(-1)
    else:
        value = np.ascontiguousarray(value)
    given = value.dtype.itemsize * 8
    if value.dtype.kind == "f":
        value = value.view(UNSIGNED[given])
    if given != bits:
        signed = type_[0] == "s" and value.dtype.kind == "i"
        value = (
            value.astype(SIGNED[bits])
            if signed
            else value.view(UNSIGNED[given]).astype(UNSIGNED[bits])
        )
    return value.view(UNSIGNED[bits])


def special_registers(
    grid: Shape3, block: Shape3, tid: Array, lane: Array, block_id: Array
) -> dict[str, Array]:
    def u32(values: Array) -> Array:
        return np.asarray(values).astype(np.uint32)

    def constant(value: int) -> Array:
        return np.full(len(tid), value, np.uint32)

    plane_threads, plane_blocks = block[0] * block[1], grid[0] * grid[1]
    special = {
        "%tid.x": u32(tid % block[0]),
        "%tid.y": u32(tid // block[0] % block[1]),
        "%tid.z": u32(tid // plane_threads),
        "%laneid": u32(lane),
        "%warpid": u32(tid // 32),
        "%ctaid.x": u32(block_id % grid[0]),
        "%ctaid.y": u32(block_id // grid[0] % grid[1]),
        "%ctaid.z": u32(block_id // plane_blocks),
        "%smid": u32(block_id % SHADER_CLUSTERS),
        "%clock": constant(0),
        "WARP_SZ": constant(32),
    }
    for axis, threads, blocks in zip("xyz", block, grid, strict=True):
        special[f"%ntid.{axis}"] = constant(threads)
        special[f"%nctaid.{axis}"] = constant(blocks)
    one, bit = np.uint64(1), lane.astype(np.uint64)
    special["%lanemask_eq"] = u32(one << bit)
    special["%lanemask_lt"] = u32((one << bit) - one)
    special["%lanemask_le"] = u32((one << (bit + one)) - one)
    special["%lanemask_gt"] = u32(~special["%lanemask_le"])
    special["%lanemask_ge"] = u32(~special["%lanemask_lt"])
    return special


def parameter_bytes(kernel: Kernel, args: Sequence[Any]) -> dict[str, bytes]:
    if len(args) != len(kernel.params):
        names = [p.name for p in kernel.params]
        raise TypeError(f"{kernel.name} takes {len(names)} parameters {names}, got {len(args)}")
    return {p.name: parameter(p, a) for p, a in zip(kernel.params, args, strict=True)}


def parameter_space(kernel: Kernel, values: dict[str, bytes]) -> Array:
    """All parameters as they lie in memory."""
    end = max((p.offset + p.size for p in kernel.params), default=0)
    space = np.zeros(end, np.uint8)
    for p in kernel.params:
        space[p.offset : p.offset + p.size] = np.frombuffer(values[p.name], np.uint8)
    return space


def parameter(declared: Parameter, value: Any) -> bytes:
    """An argument's bytes: a Buffer's address, a number in the declared type, or bytes as they are."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).ljust(declared.size, b"\0")
    if isinstance(value, Buffer):
        return int(value.addr).to_bytes(8, "little")
    if declared.type[0] == "f":
        return bytes(FLOAT[width(declared.type)](value).tobytes())
    if isinstance(
        value, (float, np.floating)
    ):  # nvcc declares a float's parameter as .b32 at times
        return np.float32(value).tobytes() if declared.size == 4 else np.float64(value).tobytes()
    return (int(value) & ((1 << 8 * declared.size) - 1)).to_bytes(declared.size, "little")
