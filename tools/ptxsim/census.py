"""Which kernels a test run has executed from the compilers' own PTX: counted launch by launch."""

from __future__ import annotations

import collections
import re
import subprocess
from typing import NamedTuple

from . import simulator

ELEMENT_TYPES = {
    "float": "fp32",
    "double": "fp64",
    "__half": "fp16",
    "__nv_bfloat16": "bf16",
}


class Execution(NamedTuple):
    """A kernel for an architecture, with its pointers' element types; ``variant`` tells compilations apart."""

    kernel: str
    arch: int
    types: tuple[str, ...]
    variant: str


LAUNCHES: collections.Counter[Execution] = collections.Counter()


def note(module: simulator.Module, kernel: str) -> None:
    # A C++ template's instances have names of their own; Triton's specialisations share the function's.
    variant = kernel if kernel.startswith("_Z") else module.digest
    LAUNCHES[Execution(kernel, module.arch, module.element_types, variant)] += 1


def demangled(names: list[str]) -> dict[str, str]:
    """C++ names as they are written; without c++filt as they are."""
    mangled = [name for name in names if name.startswith("_Z")]
    try:
        done = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {name: name for name in names}
    plain = done.stdout.splitlines() if mangled else []
    return {name: name for name in names} | dict(zip(mangled, plain, strict=True))


def template_types(name: str) -> tuple[str, ...]:
    """The element types among a demangled kernel's template arguments."""
    arguments = re.search(r"<(.*)>", name)
    words = re.findall(r"\w+", arguments[1]) if arguments else []
    return tuple(dict.fromkeys(ELEMENT_TYPES[w] for w in words if w in ELEMENT_TYPES))


def summary(launches: collections.Counter[Execution]) -> str:
    """One line: kernels x architectures x element types."""
    plain = demangled(sorted({e.kernel for e in launches}))
    seen = set()
    for execution in launches:
        name = plain[execution.kernel]
        types = execution.types or template_types(name)
        seen.add((re.sub(r"^void |[<(].*", "", name), execution.arch, types[:1] or ("",)))
    kernels = sorted({kernel for kernel, _, _ in seen})
    archs = sorted({arch for _, arch, _ in seen})
    types = sorted({t for _, _, first in seen for t in first if t})
    variants = {(execution.variant, execution.arch) for execution in launches}
    return (
        f"{len(kernels)} kernels x {len(archs)} architectures "
        f"({', '.join(f'sm_{a}' for a in archs)}) x {len(types)} dtypes ({', '.join(types)}): "
        f"{len(seen)} combinations in {len(variants)} compiled variants, "
        f"{launches.total()} launches executed from real PTX"
    )


simulator.OBSERVERS.append(note)
