"""Static facts from machine code: instructions by kind, widths of memory accesses, loops."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import NamedTuple

PLAIN = {"LDG", "STG", "LDS", "STS", "LDL", "STL", "LD", "ST"}
MEMORY = frozenset(PLAIN | {"RED", "REDG", "ATOM", "ATOMG", "LDGSTS", "UBLKCP"})
FP32 = frozenset(
    ["FADD", "FMUL", "FFMA", "FMNMX", "FMNMX3", "FSEL", "FSETP", "FADD2", "FMUL2", "FFMA2"]
)
LINE = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?"
    r"([A-Z][A-Z0-9_]*)((?:\.[A-Za-z0-9_]+)*)([^;]*);?"
)
LABEL = re.compile(r"^(\.L_x_\d+):")


class Instruction(NamedTuple):
    address: int
    predicate: str
    opcode: str
    modifiers: str
    operands: str

    @property
    def bits(self) -> int:
        """Width of a memory access per thread."""
        modifiers = self.modifiers.split(".")
        for bits in ("256", "128", "64"):
            if bits in modifiers:
                return int(bits)
        if "U8" in modifiers or "S8" in modifiers:
            return 8
        return 16 if "U16" in modifiers or "S16" in modifiers else 32

    @property
    def access(self) -> str:
        return f"{self.opcode}.{self.bits}"


@dataclasses.dataclass
class Loop:
    """A backward branch and what it repeats."""

    length: int
    memory: collections.Counter[str]
    mufu: int
    fp32: int


@dataclasses.dataclass
class Sass:
    """Counts of one kernel's machine code.

    Attributes:
        total: instructions, padding left out.
        opcodes: how often each occurs.
        memory: accesses by opcode and width: ``LDG.128``.
        mufu: special functions by kind.
        loops: the backward branches.
    """

    total: int
    opcodes: collections.Counter[str]
    memory: collections.Counter[str]
    mufu: collections.Counter[str]
    loops: list[Loop]

    @property
    def fp32(self) -> int:
        return sum(n for opcode, n in self.opcodes.items() if opcode in FP32)

    def load_bytes(self) -> int:
        """Bytes that one thread's global loads ask for when each runs once."""
        widths = (a.removeprefix("LDG.") for a in self.memory.elements() if a.startswith("LDG."))
        return sum(int(bits) // 8 for bits in widths)


def function_text(text: str, entry: str) -> str:
    """The part of a disassembly that belongs to one entry."""
    sections = re.split(r"^\.section\s+", text, flags=re.M)
    return next((s for s in sections if s.startswith(f".text.{entry},")), text)


def parse(text: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions, and the position of each label."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif m := LINE.match(line):
            found.append(Instruction(int(m[1], 16), (m[2] or "").strip(), m[3], m[4], m[5].strip()))
    return found, labels


def count(text: str) -> Sass:
    instructions, labels = parse(text)
    opcodes = collections.Counter(i.opcode for i in instructions if i.opcode != "NOP")
    memory = collections.Counter(i.access for i in instructions if i.opcode in MEMORY)
    mufu = collections.Counter(i.modifiers.strip(".") for i in instructions if i.opcode == "MUFU")
    return Sass(opcodes.total(), opcodes, memory, mufu, find_loops(instructions, labels))


def find_loops(instructions: list[Instruction], labels: dict[str, int]) -> list[Loop]:
    """Loop bodies; the branch to itself that ends every kernel is none."""
    loops = []
    for at, instruction in enumerate(instructions):
        target = re.search(r"(\.L_x_\d+)", instruction.operands)
        if instruction.opcode != "BRA" or not target or labels.get(target[1], at) >= at:
            continue
        body = instructions[labels[target[1]] : at + 1]
        loops.append(
            Loop(
                len(body),
                collections.Counter(b.access for b in body if b.opcode in MEMORY),
                sum(b.opcode == "MUFU" for b in body),
                sum(b.opcode in FP32 for b in body),
            )
        )
    return loops
