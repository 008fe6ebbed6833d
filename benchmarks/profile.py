"""Which operators a training step spends its time in, from torch.profiler."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import steps

STEPS = 3
CONTENDERS = (
    ("realness", "article's loop"),
    ("realness", "alternating + the same, pages kept"),
    ("realness", "reversal, objective 1"),
    ("dcgan, no norm in D", "one-pass ratio"),
)
GROUPS = {
    "convolution": ("convolution", "mkldnn_"),
    "pooling and upsampling": ("avg_pool", "upsample"),
    "activations": ("relu", "threshold", "sigmoid", "tanh"),
    "normalisation": ("batch_norm",),
    "linear": ("addmm", "aten::mm"),
    "optimizer": ("adam", "foreach"),
    "losses of gankernels": ("gankernels::",),
    "copies and fills": ("copy_", "fill_", "zero_", "add_"),
}


def _group(name: str) -> str:
    return next((g for g, parts in GROUPS.items() if any(p in name for p in parts)), "the rest")


def _shares(contender: steps.Contender) -> dict[str, float]:
    run = steps.make_step(contender, steps.make_players(contender, torch.float32), torch.float32)
    real, noise = steps.make_inputs(contender, steps.BATCH, torch.float32)
    for _ in range(steps.WARM_UP):
        run(real, noise)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            run(real, noise)
    spent: dict[str, float] = {}
    for event in recorded.key_averages():
        group = _group(event.key)
        spent[group] = spent.get(group, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {group: time / total for group, time in spent.items()}


def measure() -> list[dict[str, Any]]:
    """One row per contender and group of operators: its share of the operators' own time."""
    rows = []
    for system, name in CONTENDERS:
        (contender,) = (c for c in steps.CONTENDERS if (c.system, c.name) == (system, name))
        for group, share in sorted(_shares(contender).items(), key=lambda item: -item[1]):
            rows.append(
                {"system": system, "contender": name, "operators": group, "share": round(share, 4)}
            )
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"  {row['system']:20}{row['contender']:40}{row['operators']:26}{row['share']:7.1%}")
