"""The tables of what ran on a GPU: first contact, losses, whole steps."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import results
from benchmarks.losses import is_rival
from benchmarks.results import Row, by_case, table

FIRST_CONTACT = Path(__file__).parents[1] / "docs" / "results" / "gpu-first-contact.json"
OURS, FUSED = "gankernels", "gankernels value_and_grad"


def source(name: str) -> str:
    e = results.load(name)["environment"]
    cuda = f"CUDA {e['cuda']}, torch {e['torch']}, Python {e['python']}"
    return (
        f"{e['gpu']}, {cuda}, {e['date']}, commit {e['commit']}. Command: `{e['command']}`; every row is in "
        f"`benchmarks/results/{name}.json`."
    )


# ----------------------------------------------------------------------------------------- losses


def _us(row: Row | None, key: str = "median_us") -> str:
    return "" if row is None or row[key] is None else f"{row[key]:,.1f}"


def _share(row: Row) -> str:
    return f"{row['share_of_copy']:.0%}"


def _best(case: dict[str, Row], compiled: bool, key: str) -> str:
    """The fastest rival and how many times longer than our same way of running it takes."""
    ours = case[OURS][key]
    rivals = [
        r
        for n, r in case.items()
        if is_rival(n) and n.endswith("compiled") == compiled and r[key] is not None
    ]
    if not rivals or ours is None:
        return ""
    best = min(rivals, key=lambda r: float(r[key]))
    return f"{best[key] / ours:.2f} ({best['contender'].removesuffix(', compiled')})"


def losses() -> str:
    """Every case: the CUDA C++ kernels, the Triton kernels, and the best rivals."""
    cuda, triton = by_case("gpu-cuda"), by_case("gpu-triton")
    lines: list[list[object]] = []
    for key, case in cuda.items():
        other = triton.get(key, {})
        operator, shape, dtype = key
        line: list[object] = [f"`{operator}`", results.written(shape), dtype]
        line += [_us(case[OURS]), _us(case[OURS], "replay_us")]
        line += [_us(case[FUSED]), _us(case[FUSED], "replay_us"), _share(case[FUSED])]
        line += [_us(other.get(FUSED)), _us(other.get(FUSED), "replay_us")]
        line += [_best(case, False, "median_us"), _best(case, True, "median_us")]
        lines.append([*line, _best(case, False, "replay_us")])
    head = ["operator", "shape", "dtype", "forward + backward µs", "replayed"]
    head += ["`value_and_grad` µs", "replayed", "of a copy"]
    head += ["Triton: `value_and_grad` µs", "replayed"]
    head += [
        "best eager rival / ours",
        "best compiled rival / ours",
        "best eager rival / ours, replayed",
    ]
    return f"{table(head, lines)}\n\n{source('gpu-cuda')} {source('gpu-triton')}"


def slower() -> str:
    """Cases in which a rival is faster, however little."""
    lines: list[list[object]] = []
    for (operator, shape, dtype), case in by_case("gpu-cuda").items():
        for name, row in case.items():
            for key in ("median_us", "replay_us"):
                ours = case[OURS][key]
                if is_rival(name) and row[key] and ours and row[key] < ours:
                    ratio = f"{row[key] / ours:.2f}"
                    how = "replayed" if key == "replay_us" else "called"
                    lines.append([f"`{operator}`", results.written(shape), dtype, name, how, ratio])
    if not lines:
        return "None in these results."
    return table(["operator", "shape", "dtype", "rival", "", "rival / ours"], lines)


# ------------------------------------------------------------------------------------------ steps


def steps() -> str:
    lines: list[list[object]] = []
    for row in results.load("gpu-steps")["rows"]:
        head = [row["system"], row["batch"], row["precision"], row["contender"]]
        if row["absent"]:
            lines.append([*head, row["absent"], "", ""])
            continue
        figures = [f"{row['median_ms']:.2f}", row["images_per_second"], f"{row['speed_up']:.2f}"]
        lines.append([*head, *figures])
    head = ["system", "batch", "precision", "step", "ms", "images/s", "speed-up"]
    return f"{table(head, lines)}\n\nSpeed-up over the article's loop in the same rounds. {source('gpu-steps')}"


# ---------------------------------------------------------------------------------- first contact


def outcome(row: Row) -> str:
    """What a command of the first contact found, in words."""
    if "passed" in row:
        skipped = f", {len(row['skipped'])} skipped" if row["skipped"] else ""
        return f"{row['passed']} passed, {len(row['failed'])} failed{skipped}"
    if row["name"].startswith("replay-") and "replay" in row:
        found = row["replay"]
        beyond = found["differs"] + found["failed"]
        return f"{found['equal']} equal to the last bit, {found['within']} within the bound, {beyond} beyond"
    if row["status"] == 0:
        return "passed"
    stopped = str(row["status"]).startswith("stopped")
    return str(row["status"]) if stopped else f"failed: {row['status']}"


def first_contact() -> str:
    found = json.loads(FIRST_CONTACT.read_text())
    e = found["environment"]
    lines: list[list[object]] = [
        [stage["stage"], row["name"], outcome(row), f"{row['seconds']:.0f}", row["commit"]]
        for stage in found["stages"]
        for row in stage["commands"]
    ]
    text = table(["stage", "command", "outcome", "seconds", "commit"], lines)
    return (
        f"{text}\n\n{e['gpu']} (driver {e['driver']}), torch {e['torch']}, Triton {e['triton']}, Python "
        f"{e['python']}, CUDA {e['torch_cuda']}, {e['date']}. Command: "
        f"`python tools/gpu_first_contact.py`; all of it is in `docs/results/gpu-first-contact.json`."
    )


def short_losses() -> str:
    """For the README: what the device takes, beside the best that PyTorch makes of any formula."""
    triton = by_case("gpu-triton")
    lines: list[list[object]] = []
    for (operator, shape, dtype), case in by_case("gpu-cuda").items():
        line: list[object] = [f"`{operator}`", results.written(shape), dtype]
        line += [f"{_us(case[OURS], 'replay_us')} µs"]
        line += [f"{_us(triton[operator, shape, dtype][OURS], 'replay_us')} µs"]
        lines.append([*line, *(_best(case, compiled, "replay_us") for compiled in (False, True))])
    head = ["forward + backward", "shape", "dtype", "CUDA C++", "Triton"]
    head += ["best eager rival / CUDA C++", "best compiled rival / CUDA C++"]
    return f"{table(head, lines)}\n\n{source('gpu-cuda')}"


SHORT_STEPS = ("article's loop", "the same, mode=reduce-overhead", "as a CUDA graph")


def short_steps() -> str:
    """For the README: the article's loop, the best that PyTorch makes of it, and ours as a graph."""
    rows = [
        r
        for r in results.load("gpu-steps")["rows"]
        if r["contender"].endswith(SHORT_STEPS) and not r["absent"]
    ]
    lines: list[list[object]] = [
        [
            r["system"],
            r["batch"],
            r["precision"],
            r["contender"],
            f"{r['median_ms']:.2f} ms",
            f"{r['speed_up']:.2f}",
        ]
        for r in rows
    ]
    head = ["system", "batch", "precision", "step", "time", "speed-up"]
    return f"{table(head, lines)}\n\n{source('gpu-steps')}"
