"""Through which of its pointers a Triton kernel loads and stores, read from Triton's own representation."""

from __future__ import annotations

import re
from typing import NamedTuple

KERNEL = re.compile(r"tt\.func public @.*")
ARGUMENT = re.compile(r"(%[\w.]+): (!tt\.ptr)?")
# What derives one pointer from another.
DERIVED = re.compile(r"(%[\w.]+) = tt\.(?:addptr|splat|broadcast|expand_dims|bitcast) (%[\w.]+)")
LOAD = re.compile(r"= tt\.load (%[\w.]+)")
STORE = re.compile(r"tt\.store (%[\w.]+)")
ATOMIC = re.compile(r"= tt\.atomic_\w+ (?:\w+, ){0,3}(%[\w.]+)")


class Use(NamedTuple):
    """Whether a kernel loads through a pointer argument, and whether it stores."""

    loads: bool
    stores: bool


def pointer_use(ir: str) -> list[Use]:
    """Of each pointer among the kernel's arguments, in their order."""
    signature = KERNEL.search(ir)
    if signature is None:
        raise ValueError("no public function of Triton's")
    pointers = [name for name, pointer in ARGUMENT.findall(signature[0]) if pointer]
    origin = {name: name for name in pointers}
    loaded, stored = set(), set()
    for line in ir[signature.end() :].splitlines():
        if (found := DERIVED.search(line)) and found[2] in origin:
            origin[found[1]] = origin[found[2]]
        for pattern, uses in ((LOAD, loaded), (STORE, stored), (ATOMIC, loaded), (ATOMIC, stored)):
            if found := pattern.search(line):
                uses.add(origin[found[1]])
    return [Use(name in loaded, name in stored) for name in pointers]
