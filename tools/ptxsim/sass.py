"""Static facts from machine code: instructions by kind, widths of memory accesses, loops."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import NamedTuple

PLAIN = {"LDG", "STG", "LDS", "STS", "LDL", "STL", "LD", "ST"}
MEMORY = frozenset(PLAIN | {"RED", "REDG", "ATOM", "ATOMG", "LDGSTS", "UBLKCP"})
LOCAL = ("LDL.", "STL.")
# Instructions by the pipe that is certain to execute them, and how many lanes' work each is. Others (moves, IMAD,
# conversions) have more than one: what is left out only makes a bound on the speed less tight.
PIPES: dict[str, dict[str, int]] = {
    "fp32": {"FADD": 1, "FMUL": 1, "FFMA": 1, "FADD2": 2, "FMUL2": 2, "FFMA2": 2},
    "fp64": dict.fromkeys(["DADD", "DMUL", "DFMA", "DSETP", "DMNMX"], 1),
    "mufu": {"MUFU": 1},
    "alu": {
        **dict.fromkeys(["FMNMX", "FMNMX3", "FSEL", "FSETP", "SEL", "PRMT", "SHF", "LOP3"], 1),
        **dict.fromkeys(["IADD3", "LEA", "ISETP", "IMNMX", "VIMNMX"], 1),
    },
}
MOVES = ("MOV", "UMOV", "CS2R", "ULDC", "LDC", "R2UR", "S2R", "S2UR")
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
    """A backward branch and what it repeats: instructions begin to end."""

    begin: int
    end: int
    length: int
    memory: collections.Counter[str]
    pipes: dict[str, float]

    def contains(self, other: Loop) -> bool:
        return other is not self and self.begin <= other.begin and other.end <= self.end

    @property
    def local_share(self) -> float:
        """Of its instructions, those that access local memory."""
        return sum(n for access, n in self.memory.items() if access.startswith(LOCAL)) / self.length


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
    def moves(self) -> int:
        return sum(self.opcodes[opcode] for opcode in MOVES)

    @property
    def load_bytes(self) -> int:
        """Bytes that one thread's global loads ask for when each runs once."""
        return load_bytes(self.memory)

    @property
    def innermost(self) -> list[Loop]:
        """The loops that contain no other."""
        return [
            loop for loop in self.loops if not any(loop.contains(other) for other in self.loops)
        ]


def load_bytes(memory: collections.Counter[str]) -> int:
    widths = (
        access.removeprefix("LDG.") for access in memory.elements() if access.startswith("LDG.")
    )
    return sum(int(bits) // 8 for bits in widths)


def function_text(text: str, entry: str) -> str:
    """The part of a disassembly that belongs to one entry."""
    sections = re.split(r"^\s*\.section\s+", text, flags=re.M)
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
        begin = labels[target[1]]
        loops.append(loop_of(instructions, begin, at + 1))
    return loops


def loop_of(instructions: list[Instruction], begin: int, end: int) -> Loop:
    body = instructions[begin:end]
    return Loop(
        begin,
        end,
        sum(b.opcode != "NOP" for b in body),
        collections.Counter(b.access for b in body if b.opcode in MEMORY),
        pipe_work(collections.Counter(b.opcode for b in body)),
    )


def pipe_work(opcodes: collections.Counter[str]) -> dict[str, float]:
    """Lanes' work of each pipe."""
    return {
        pipe: float(sum(opcodes[opcode] * work for opcode, work in members.items()))
        for pipe, members in PIPES.items()
    }
