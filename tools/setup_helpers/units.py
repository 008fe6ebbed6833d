"""Translation units: a folder's files compiled as one, for most of a file's time goes to torch's headers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path


def units(sources: Iterable[str | Path], folder: Path) -> list[str]:
    """What is compiled in place of ``sources``: a file in ``folder`` for each of their folders."""
    together, alone = [], []
    for source in sorted(map(Path, sources)):
        # Free of torch: nvcc's files, and those of an instruction set, which must not reach another's.
        free = source.suffix == ".cu" or source.parent.name == "simd"
        (alone if free else together).append(source)
    made = [unit(list(of), folder) for _, of in groupby(together, key=lambda s: s.parent)]
    return [*map(str, alone), *map(str, made)]


def unit(sources: list[Path], folder: Path) -> Path:
    """A file that includes ``sources``, all of one folder; written where it does not say so yet."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{sources[0].parent.name}.cpp"
    paths = (os.path.relpath(source, folder).replace(os.sep, "/") for source in sources)
    text = "".join(f'#include "{path}"\n' for path in paths)
    if not target.exists() or target.read_text() != text:
        written = folder / f"{target.name}.{os.getpid()}"
        written.write_text(text)
        written.replace(target)  # another process may be compiling it
    return target
