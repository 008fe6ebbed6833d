"""What one launch executed again and again: the part of a kernel whose cost grows with the rows."""

from __future__ import annotations

import dataclasses

from .simulator import Result
from .simulator.parser import Instruction, Kernel
from .simulator.types import TYPES, width

MUFU = frozenset({"ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh", "div"})
ARITHMETIC = frozenset({"add", "sub", "mul", "fma", "mad"})
COMPARISONS = frozenset({"setp", "selp", "min", "max"})
LOGIC = frozenset({"and", "or", "xor", "not", "shl", "shr", "shf", "prmt", "lop3", "bfe", "bfi"})
ON_CHIP = ("shared", "local", "param")


@dataclasses.dataclass
class Counts:
    """Warp instructions, also by pipe, and the bytes that a thread loads in one turn of a loop, at most."""

    warp_instructions: int
    pipes: dict[str, float]
    load_bytes: float


def pipe_of(ins: Instruction) -> tuple[str, int] | None:
    """The pipe that an instruction is certain to need, and how many lanes' work it is."""
    type_ = next((x for x in reversed(ins.mods) if x in TYPES), "b32")
    if ins.op in MUFU and type_ in ("f32", "f16", "bf16", "f16x2", "bf16x2"):
        return "mufu", 1
    if type_ == "f64" and ins.op in ARITHMETIC | COMPARISONS:
        return "fp64", 1
    if type_ in ("f32", "f32x2") and ins.op in ARITHMETIC:
        return "fp32", width(type_) // 32
    if ins.op in COMPARISONS | LOGIC or (ins.op in ("add", "sub") and type_[0] in "us"):
        return "alu", 1
    return None


def pipe_work(kernel: Kernel) -> dict[str, float]:
    """Lanes' work of each pipe in the kernel's text, each instruction once."""
    work = dict.fromkeys(("fp32", "fp64", "mufu", "alu"), 0.0)
    for ins in kernel.code:
        if (found := pipe_of(ins)) is not None:
            work[found[0]] += found[1]
    return work


def costs(ins: Instruction) -> bool:
    """Not a move: ptxas gives both sides one register, or reads the parameter where it is used."""
    return ins.op != "mov" and not (ins.op == "ld" and "param" in ins.mods)


def is_global(ins: Instruction, op: str) -> bool:
    on_chip = any(x.startswith(ON_CHIP) for x in ins.mods)
    return ins.op == op and not on_chip


def loops(result: Result) -> list[range]:
    """From the target of each backward branch to the branch, where the launch came by."""
    found, kernel = [], result.kernel
    for ins in kernel.code:
        if ins.op == "bra":
            begin = kernel.labels[ins.args[0][1]]
            if begin <= ins.index and result.executed[begin] > 0:
                found.append(range(begin, ins.index + 1))
    return found


def count(result: Result, everything: bool = False) -> Counts:
    """Instructions that warps executed more than once on average; all if no store is among them, or if asked."""
    code, executed = result.kernel.code, result.executed
    repeated = executed > executed[0]
    if everything or not any(repeated[ins.index] and is_global(ins, "st") for ins in code):
        repeated = executed > 0
    pipes = dict.fromkeys(("fp32", "fp64", "mufu", "alu"), 0.0)
    in_loop: dict[range, float] = {}
    for ins in code:
        if not repeated[ins.index]:
            continue
        if (found := pipe_of(ins)) is not None:
            pipes[found[0]] += found[1] * int(executed[ins.index])
        if is_global(ins, "ld"):
            loop = innermost(result, ins.index)
            share = min(1.0, executed[ins.index] / executed[loop.start])
            in_loop[loop] = in_loop.get(loop, 0.0) + access_bytes(ins) * share
    total = sum(int(executed[ins.index]) for ins in code if repeated[ins.index] and costs(ins))
    return Counts(total, pipes, max(in_loop.values(), default=0.0))


def innermost(result: Result, index: int) -> range:
    """The smallest loop around an instruction, or all of the kernel."""
    around = [loop for loop in loops(result) if index in loop]
    return min(around, key=len, default=range(len(result.kernel.code)))


def access_bytes(ins: Instruction) -> int:
    vector = next((int(x[1:]) for x in ins.mods if x in ("v2", "v4", "v8")), 1)
    type_ = next(x for x in reversed(ins.mods) if x in TYPES)
    return vector * width(type_) // 8
