"""The section about peers, made from its result file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import table

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "gpu-peers.json"
OURS = "gankernels"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of the table.

    Attributes:
        name: at its head.
        value: less is better.
        written: as the table shows it.
    """

    name: str
    value: Callable[[Row], float]
    written: Callable[[Row], str]


def instructions(row: Row) -> str:
    """Of PyTorch's operators nobody knows how many they execute."""
    return f"{'≥ ' if row['of_pytorch'] else ''}{row['instructions_per_element']:,.1f}"


COLUMNS = (
    Column(
        "launches",
        lambda r: r["launches"],
        lambda r: (
            f"{r['launches']}" + (f" ({r['of_pytorch']} of PyTorch)" if r["of_pytorch"] else "")
        ),
    ),
    Column("read + written / ideal", lambda r: r["traffic"], lambda r: f"{r['traffic']:.2f}"),
    Column("requested / ideal", lambda r: r["requested"], lambda r: f"{r['requested']:.2f}"),
    Column("instructions per element", lambda r: r["instructions_per_element"], instructions),
    Column("registers", lambda r: r["registers"], lambda r: f"{r['registers']}"),
    Column("spilled bytes", lambda r: r["spills"], lambda r: f"{r['spills']}"),
    Column(
        "bound, share of DRAM rate",
        lambda r: -r["bound"],
        lambda r: f"{r['bound']:.1%} ({r['limited_by']})",
    ),
)


def section() -> str:
    found = json.loads(RESULTS.read_text())
    rows, e = found["rows"], found["environment"]
    source = (
        f"{e['arch']} ({e['gpu']}), torch {e['torch']}, Triton {e['triton']}, Liger {e['liger_kernel']}, "
        f"{e['nvcc']}, Python {e['python']}, {e['date']}, commit {e['commit']}. Command: `{e['command']}`; every "
        "launch with its configuration is in `docs/results/gpu-peers.json`."
    )
    return "\n\n".join([TEXT.strip(), contenders(rows), source, AHEAD, ahead(rows)])


def problem(row: Row) -> tuple[str, str, str]:
    return f"`{row['operator']}`", row["shape"], row["dtype"]


def contenders(rows: list[Row]) -> str:
    lines = [[*problem(r), r["contender"], *(c.written(r) for c in COLUMNS)] for r in rows]
    head = ["operator", "rows × classes", "dtype", "contender", *(c.name for c in COLUMNS)]
    return table(head, lines)


def ahead(rows: list[Row]) -> str:
    """By problem and column: the peers that are better than one of our rows, and all of these."""
    lines: list[list[object]] = []
    for key in dict.fromkeys(map(problem, rows)):
        of_problem = [r for r in rows if problem(r) == key]
        ours = [r for r in of_problem if r["contender"].startswith(OURS)]
        for column in COLUMNS:
            worst = max(map(column.value, ours))
            better = [r for r in of_problem if column.value(r) < worst and r not in ours]
            if better:
                lines.append([*key, column.name, listed(better, column), listed(ours, column)])
    head = ["operator", "rows × classes", "dtype", "column", "ahead of one of ours", "ours"]
    return table(head, lines)


def listed(rows: list[Row], column: Column) -> str:
    names = [r["contender"].removeprefix(f"{OURS} ") for r in rows]
    return "; ".join(f"{n} {column.written(r)}" for n, r in zip(names, rows, strict=True))


TEXT = """\
What a user would run instead, forward and backward of the same loss, through the same compilers and the same
emulator for one architecture. No peer's code is kept here.

- **gankernels `value_and_grad`**: one launch for the loss and its gradients. **`backward()`**: the same launch
  and, when autograd comes back, one that would multiply the gradients by that of the loss where they lie: it is a
  one here, which the kernel sees, and it leaves. Both compilers, as above.
- **compiled**: the Triton code that Inductor generates for the formulas of `benchmarks/formulas.py`, forward
  and backward cut as torch.compile cuts them, for a GPU of which it is told the properties. Inductor names
  several configurations of a kernel and takes the fastest by the clock; here the one with the best bound. Those
  that it adds after compiling a reduction that needs many registers are not tried.
- **Liger KL divergence**: `LigerKLDIVLoss` of `F.log_softmax`, with the anchor expanded to the batch, which its
  kernels need. PyTorch's operators around them, log_softmax and its backward among them, are no code that could
  be compiled here: each counts as one launch that reads its inputs and writes its results once, and its
  instructions are not counted (≥).
- **Liger cross-entropy**: takes one class per row, so it is the loss for one-hot anchors and for no others:
  soft targets it does not support. Its gradients overwrite the logits, and it waits for the host to check the
  classes.

Of a peer's launch the first eight blocks are run, and counted for all; every peer is run whole on a small
problem first, and compared with PyTorch. Ours are counted as in the tables above.

- **launches**: of forward and backward, without that which makes the gradient of the loss by itself.
- **read + written**: every tensor of every launch, once if it is loaded and once if it is stored. What small
  problems leave in the L2 cache is not subtracted. **Ideal**: logits, gradients and anchors once.
- **requested**: the 32-byte sectors that the instructions of warps ask for, from whatever cache; neighbouring
  warps may ask for the same one.
- **instructions**: of threads, as machine code, for each element of the two batches of logits.
- **registers, spilled bytes**: of the launch that has most.
- **bound**: the time of the ideal bytes at the DRAM rate over the sum of the bounds of the launches. A launch
  of fewer blocks than there are multiprocessors uses only as many. Launches cost nothing in it, which flatters
  many small ones.
"""
AHEAD = """\
### Where others are ahead

Columns in which a peer is better than at least one of our rows, in the order value_and_grad (CUDA C++, Triton),
backward() (CUDA C++, Triton). Registers are no aim by themselves, and where ≥ stands, PyTorch's operators are
not counted."""
