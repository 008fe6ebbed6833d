"""The parts of docs/switching.md that are made from the scripts of examples/dropin and from their results."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from benchmarks import results
from examples.dropin.compare import FOLDER, STYLES


def diff(style: str) -> str:
    """The plain script's lines that go, and the switched script's that come."""
    before, after = (
        (FOLDER / version / f"{style}.py").read_text().splitlines()
        for version in ("plain", "switched")
    )
    # Two lines around a change; the names of the files and the first place in them say nothing.
    lines = list(difflib.unified_diff(before, after, n=2, lineterm=""))[3:]
    shown = ("@@" if line.startswith("@@") else line.rstrip() for line in lines)
    return "\n".join(["```diff", *shown, "```"])


def table() -> str:
    """Style, what to write, how equal the losses are, and what they cost."""
    lines: list[list[object]] = []
    for r in results.load("dropin")["rows"]:
        different = (r["difference_float64"], r["difference_float32"])
        lines.append(
            [
                f"[{r['style']}](#{r['style']})",
                r["write"],
                " / ".join("" if d is None else f"{d:.0e}" for d in different),
                results.written(r["shape"]),
                f"{r['eager_us']:,.1f} / {r['ours_us']:,.1f}",
                f"{r['ratio']:.2f}",
            ]
        )
    head = ["style", "write", "losses equal to, float64 / float32", "logits"]
    return results.table([*head, "µs, eager / ours", "eager / ours"], lines)


def copies() -> str:
    """The cases that are bound by memory, against a pass over their bytes."""
    rows = [r for r in results.load("dropin")["rows"] if r["times_copy"]]
    return "\n".join(
        f"{r['write']} of {results.written(r['shape'])}: {r['times_copy']:.2f} times a pass that reads "
        "both tensors and writes one."
        for r in rows
    )


PARTS: dict[str, Callable[[], str]] = {
    "switching": table,
    "copies": copies,
    **{f"diff of {style}": partial(diff, style) for style in STYLES},
}
