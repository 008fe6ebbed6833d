"""PTX text to instructions: one module, its kernels, their parameters, registers and shared variables."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from .errors import Unsupported
from .memory import align
from .types import FLOAT, TYPES, UNSIGNED, Array, width

# An operand is ("reg", name), ("int", value), ("vec", [operands]), ("addr", name, offset), ("pair", a, b) ...
Operand = tuple[Any, ...]
LINKAGE = r"(?:\.(?:visible|weak|extern)\s+)*"
ENTRY = re.compile(rf"\s*{LINKAGE}\.entry\s+([\w$]+)\s*(\((.*?)\))?([^{{;]*)\{{", re.S)
FUNCTION = re.compile(rf"{LINKAGE}\.func")
PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s*(.*?)([\w$]+)(?:\[(\d+)\])?\s*$", re.S
)
DECLARATION = re.compile(
    rf"{LINKAGE}\.(shared|global|const|local)\s+(?:\.align\s+(\d+)\s+)?"
    r"(?:\.attribute\([^)]*\)\s*)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)\s*(=.*)?$",
    re.S,
)
LABEL = re.compile(r"([\w$%]+):(?!:)")
GUARD = re.compile(r"@(!?)([\w%$]+)\s+(.*)", re.S)
OPERATION = re.compile(r"([a-z][\w.:]*)\s*(.*)", re.S)
LOCATION = re.compile(r"\.loc\s")
BRACKET = re.compile(r"[{(\[]")
BRACE = re.compile(r"[{}]")
SPACE = re.compile(r"\s*")


@dataclasses.dataclass
class Instruction:
    """One instruction: ``@!p add.ftz.f32 d, a, b`` has op add, mods [ftz, f32], pred (p, negated)."""

    op: str
    mods: list[str]
    args: list[Operand]
    pred: tuple[str, bool] | None
    text: str
    loc: tuple[int, ...] | None
    index: int = 0

    def __post_init__(self) -> None:
        self.name = ".".join([self.op, *self.mods])
        self.types = [x for x in self.mods if x in TYPES]


class Parameter(NamedTuple):
    name: str
    type: str
    elements: int
    offset: int
    size: int


class Kernel:
    """A parsed .entry."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.params: list[Parameter] = []
        self.code: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.regs: dict[str, str] = {}
        self.shared: dict[str, tuple[int, int]] = {}
        self.local: dict[str, tuple[int, int]] = {}
        self.max_threads: int | None = None


@dataclasses.dataclass
class Globals:
    """Module-scope variables: (bytes, alignment) of the shared ones, and the initial value of the others."""

    shared: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    memory: dict[str, tuple[int, int, Array | None]] = dataclasses.field(default_factory=dict)
    dynamic_shared: list[str] = dataclasses.field(default_factory=list)


class Program:
    """What a PTX file says."""

    def __init__(self, ptx: str) -> None:
        self.digest = hashlib.sha256(ptx.encode()).hexdigest()[:16]
        ptx = re.sub(r"/\*.*?\*/", "", ptx, flags=re.S)
        ptx = re.sub(r"//[^\n]*", "", ptx)
        debug = re.search(r"^\s*\.section", ptx, re.M)
        if debug:
            ptx = ptx[: debug.start()]
        files = re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', ptx, re.M)
        self.files = {int(number): path for number, path in files}
        ptx = re.sub(r"^\s*\.file[^\n]*$", "", ptx, flags=re.M)
        ptx = re.sub(r"^(\s*\.loc\s+\d+\s+\d+\s+\d+)[^\n]*$", r"\1;", ptx, flags=re.M)
        target = re.search(r"\.target\s+(\w+)", ptx)
        self.target = target[1] if target else "?"
        ptx = re.sub(r"^\s*\.(version|target|address_size)[^\n]*$", "", ptx, flags=re.M)
        self.kernels: dict[str, Kernel] = {}
        self.globals = Globals()
        self._module(ptx)

    @property
    def arch(self) -> int:
        """90 for the target sm_90a."""
        digits = re.search(r"\d+", self.target)
        return int(digits[0]) if digits else 0

    def _module(self, text: str) -> None:
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
            elif entry := ENTRY.match(text, at):
                end = closing_brace(text, entry.end())
                kernel = Kernel(entry[1])
                kernel.params = parameters(entry[3] or "")
                if threads := re.search(r"\.(?:reqntid|maxntid)\s+([\d\s,]+)", entry[4]):
                    kernel.max_threads = int(np.prod([int(n) for n in threads[1].split(",")]))
                self._body(kernel, text[entry.end() : end - 1])
                self.kernels[kernel.name] = kernel
                at = end
            elif FUNCTION.match(text, at):
                opening = re.compile(r"[^{;]*([{;])").match(text, at)
                assert opening is not None
                at = opening.end()
                if opening[1] == "{":
                    at = closing_brace(text, at)
            else:
                end = text.find(";", at)
                end = len(text) if end < 0 else end
                self._declaration(text[at:end].strip(), None)
                at = end + 1

    def _declaration(self, text: str, kernel: Kernel | None) -> None:
        found = DECLARATION.match(text)
        if not found:
            raise Unsupported(f"declaration: {text[:120]}")
        space, alignment, type_, name, dims, initial = found.groups()
        sizes = re.findall(r"\[(\d*)\]", dims or "")
        nbytes = width(type_) // 8 * int(np.prod([int(n) for n in sizes if n], initial=1))
        aligned = int(alignment or width(type_) // 8)
        if space == "shared" and ("" in sizes or ".extern" in text):
            self.globals.dynamic_shared.append(name)
        elif space == "shared":
            (kernel.shared if kernel else self.globals.shared)[name] = (nbytes, aligned)
        elif space == "local":
            assert kernel is not None, text
            kernel.local[name] = (nbytes, aligned)
        else:
            self.globals.memory[name] = (nbytes, aligned, initial_value(initial, type_))

    def _body(self, kernel: Kernel, text: str) -> None:
        at, location, scopes, scope_id = 0, None, [{}], 0  # type: ignore[var-annotated]
        while True:
            at = SPACE.match(text, at).end()  # type: ignore[union-attr]
            if at >= len(text):
                return
            if text[at] == "{":
                scopes.append({})
                scope_id += 1
                at += 1
                continue
            if text[at] == "}":
                scopes.pop()
                at += 1
                continue
            if label := LABEL.match(text, at):
                kernel.labels[label[1]] = len(kernel.code)
                at = label.end()
                continue
            end = text.index(";", at)
            statement = text[at:end].strip()
            at = end + 1
            if LOCATION.match(statement):
                location = tuple(int(x) for x in statement.split()[1:4])
            elif statement.startswith(".reg"):
                declare_registers(kernel, statement, scopes, scope_id)
            elif statement.startswith((".shared", ".local")):
                self._declaration(statement, kernel)
            elif not statement.startswith((".pragma", ".callprototype", ".branchtargets")):
                kernel.code.append(instruction(statement, location, scopes))
                kernel.code[-1].index = len(kernel.code) - 1


def closing_brace(text: str, at: int) -> int:
    """The position behind the brace that closes the one before ``at``."""
    depth = 1
    while depth:
        brace = BRACE.search(text, at)
        assert brace is not None
        depth += 1 if brace[0] == "{" else -1
        at = brace.end()
    return at


def parameters(text: str) -> list[Parameter]:
    found, offset = [], 0
    for part in text.split(","):
        match = PARAMETER.search(part.strip())
        if not match:
            continue
        size = width(match[2]) // 8 * int(match[5] or 1)
        offset = align(offset, int(match[1] or 0) or width(match[2]) // 8)
        found.append(Parameter(match[4], match[2], int(match[5] or 0), offset, size))
        offset += size
    return found


def initial_value(text: str | None, type_: str) -> Array | None:
    if not text:
        return None
    words = re.findall(r"[-\w.]+", text.strip("= {}"))
    values = [float(x) if "." in x else int(x, 0) for x in words]
    return np.array(values, UNSIGNED[width(type_)] if type_[0] in "bus" else FLOAT[width(type_)])


def declare_registers(
    kernel: Kernel, statement: str, scopes: list[dict[str, str]], scope_id: int
) -> None:
    """``.reg .f32 %f<9>``; a register of an inner scope gets a name of its own, for it may hide an outer one."""
    found = re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement, re.S)
    assert found is not None, statement
    for declared in found[2].split(","):
        name = declared.strip()
        many = re.match(r"(.*)<(\d+)>$", name)
        for one in [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]:
            unique = one if len(scopes) == 1 else f"{one}@{scope_id}"
            if len(scopes) > 1:
                scopes[-1][one] = unique
            kernel.regs[unique] = found[1]


def instruction(
    statement: str, location: tuple[int, ...] | None, scopes: list[dict[str, str]]
) -> Instruction:
    text, pred = " ".join(statement.split()), None
    if statement[0] == "@":
        guard = GUARD.match(statement)
        assert guard is not None, statement
        pred, statement = (resolve(guard[2], scopes), bool(guard[1])), guard[3]
    found = OPERATION.match(statement)
    assert found is not None, statement
    op, *mods = words_of(found[1])
    # Most operands are named outside of all scopes, and most of them again and again.
    parse = outer_operand if len(scopes) == 1 else partial(operand, scopes=scopes)
    return Instruction(op, mods, [parse(a) for a in split_operands(found[2])], pred, text, location)


@cache
def words_of(name: str) -> tuple[str, ...]:
    """An opcode and its modifiers: "::" belongs to one of them (shared::cta), the dots separate them."""
    return tuple(w.replace("__", "::") for w in name.replace("::", "__").split("."))


def split_operands(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    if not BRACKET.search(text):
        return [part.strip() for part in text.split(",")] if text.strip() else []
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char in "{[(") - (char in "}])")
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    if current.strip():
        parts.append(current.strip())
    return parts


def resolve(name: str, scopes: list[dict[str, str]]) -> str:
    if len(scopes) < 2:  # names outside of all scopes stay as they are
        return name
    return next((scope[name] for scope in reversed(scopes) if name in scope), name)


@cache
def outer_operand(text: str) -> Operand:
    return operand(text, [])


def operand(text: str, scopes: list[dict[str, str]]) -> Operand:
    if text[0] == "%" and "|" not in text:  # most are
        return ("reg", resolve(text, scopes))
    if text.startswith("{"):
        return ("vec", [operand(x.strip(), scopes) for x in text.strip("{} \n\t").split(",")])
    if text.startswith("["):
        found = re.match(r"^([%\w$.]+)\s*(?:\+\s*(-?\w+))?$", text.strip("[] \n\t"))
        if not found:
            raise Unsupported(f"address {text}")
        return ("addr", resolve(found[1], scopes), int(found[2] or "0", 0))
    if text.startswith("!"):
        return ("not", resolve(text[1:].strip(), scopes))
    if "|" in text:
        left, right = text.split("|")
        return ("pair", operand(left.strip(), scopes), operand(right.strip(), scopes))
    if found := re.match(r"^0[fF]([0-9a-fA-F]{8})$", text):
        return ("f32bits", int(found[1], 16))
    if found := re.match(r"^0[dD]([0-9a-fA-F]{16})$", text):
        return ("f64bits", int(found[1], 16))
    if re.match(r"^-?(0[xX][0-9a-fA-F]+|\d+)U?$", text):
        return ("int", int(text.rstrip("U"), 0))
    if re.match(r"^-?\d+\.\d*([eE][-+]?\d+)?$", text):
        return ("float", float(text))
    if text == "_":
        return ("sink",)
    return ("reg", resolve(text, scopes))
