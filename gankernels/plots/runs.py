"""The metrics of a run: read from its folder, and drawn as curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gankernels._files import write_whole
from gankernels.plots import canvas

__all__ = ["read_metrics", "save_curves"]

_PLAYERS = frozenset(("d", "g", "real", "fake"))
_NOT_CURVES = frozenset(("step", "epoch", "images", "time", "seconds", "wall_time"))


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Read a run's ``metrics.jsonl``: one JSON object with an integer "step" on each line.

    A run that was killed and resumed may have left half a last line and repeated steps: the half
    line is dropped, and the last record of a step counts.

    Args:
        run_dir: The run's folder.

    Returns:
        The records by ascending step.

    Raises:
        FileNotFoundError: There is no ``metrics.jsonl``.
        ValueError: It holds no record, or a whole line that is not such an object; the message has
            the file and the line number.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the metrics of a training run")
    *lines, half = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line)
        if record is None:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with an integer "step"'
            )
        records[record["step"]] = record
    last = _parse(half)
    if last is not None:
        records[last["step"]] = last
    if not records:
        raise ValueError(f"{path}: no metrics in it; expected one JSON object on each line")
    return [records[step] for step in sorted(records)]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def save_curves(run_dir: str | Path) -> Path:
    """Draw ``curves.png`` from a run's ``metrics.jsonl``.

    What the discriminator, the generator, real and fake samples have in common shares a panel:
    ``d_loss`` and ``g_loss``, ``real_score`` and ``fake_score``; any other number has its own.

    Args:
        run_dir: The run's folder.

    Returns:
        The path of ``curves.png``.

    Raises:
        FileNotFoundError, ValueError: See :func:`read_metrics`; also if no record has a number.
    """
    records = read_metrics(run_dir)
    panels = _panels(records)
    if not panels:
        raise ValueError(f"{Path(run_dir) / 'metrics.jsonl'}: no numbers besides the step to draw")
    figure = canvas.figure(8, 2.6 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = [(r["step"], float(r[name])) for r in records if _is_number(r.get(name))]
            steps, values = zip(*points, strict=True)
            # A lone point has no line to be seen by.
            axis.plot(steps, values, label=name, linewidth=1, marker="." if len(steps) < 2 else "")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
        if len(names) > 1:
            axis.legend(loc="upper right")
    axes[-1].set_xlabel("step")
    return write_whole(
        Path(run_dir) / "curves.png", lambda file: figure.savefig(file, format="png", dpi=120)
    )


def _panels(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    names = dict.fromkeys(
        name
        for record in records
        for name, value in record.items()
        if name not in _NOT_CURVES and _is_number(value)
    )
    panels: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (not name.endswith("loss"), "score" not in name)):
        player, _, quantity = name.partition("_")
        title = quantity if quantity and player in _PLAYERS else name
        panels.setdefault(title, []).append(name)
    return panels


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
