"""Damaged texts of a run, its configuration and its log: an error that names the file, or a run that goes on."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from gankernels.plots import read_metrics
from gankernels.training import TrainConfig, train
from gankernels.training.report import write_report
from tools.torture.attack import Found, refused
from tools.torture.files import DAMAGES
from tools.torture.writes import config

CASES = {
    "load": 4_000,
    "read": 4_000,
    "report": 200,
    "report of another configuration": 200,
    "resume": 200,
}
STEPS = {"before": 4, "after": 6}

EXTREMES = {
    "empty": b"",
    "a list": b"[]\n",
    "a number": b"3\n",
    "no text": b"\xff\xfe\x00\n",
    "nested lists": b"[" * 10**5 + b"\n",
    "a number of 10,000 digits": b'{"step": 1' + b"0" * 10**4 + b"}\n",
    "not a number": b'{"step": NaN, "steps": NaN}\n',
    "a huge step": b'{"step": 1e400, "steps": 1e400}\n',
}


# What is done with a folder, by the file of it that is damaged.
USES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "load": ("config.json", lambda folder: TrainConfig.load(folder / "config.json")),
    "read": ("metrics.jsonl", read_metrics),
    "report": ("metrics.jsonl", write_report),
    "report of another configuration": ("config.json", write_report),
    "resume": (
        "metrics.jsonl",
        lambda folder: train(config(STEPS["after"]), folder, resume=True, progress=False),
    ),
}


def use(what: str, whole: Path, folder: Path, content: bytes) -> None:
    """On a copy of a run with this in place of its file."""
    name, do = USES[what]
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    if refused(path, lambda: do(folder)) and what == "resume":
        raise AssertionError("its checkpoint is whole, and it does not go on")


def run(share: float) -> Found:
    found, rng = Found(), random.Random(0)
    with tempfile.TemporaryDirectory() as root:
        whole, folder = Path(root, "whole"), Path(root, "run")
        train(config(STEPS["before"]), whole, progress=False)
        for what, (name, _) in USES.items():
            good = (whole / name).read_bytes()
            for i in range(max(3, round(share * CASES[what]))):
                damage = DAMAGES[i % len(DAMAGES)]
                bad = damage(bytearray(good), rng)
                found.attempt(
                    f"{what}: {damage.__name__}", lambda w=what, b=bad: use(w, whole, folder, b)
                )
            quick = what in ("load", "read")
            for kind, content in EXTREMES.items() if share == 1 or quick else []:
                found.attempt(f"{what}: {kind}", lambda w=what, b=content: use(w, whole, folder, b))
    return found
