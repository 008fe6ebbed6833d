"""Every option of the command line with every kind of value: done, or refused in one line that names it."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gankernels.training.cli import _parser, main
from gankernels.training.recipes import RECIPES
from tools.torture.attack import Found

VALUES = (
    "",
    "-1",
    "0",
    "1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "x",
    "None",
    "ünïcode",
    "a=b",
    "=",
    "9" * 30,
)
SMALL = "--steps 1 --batch-size 4 --samples 2 --device cpu --quiet"
# What would train for ever, or ask for all memory: shown as a configuration, and not run.
HUGE = "9" * 30
# These choose where files are.
FOLDERS = ("--out", "--resume", "--help", "--show-config", "--tensor")


def options(command: str) -> Iterator[argparse.Action]:
    """Of a command, from the parser itself."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    for action in commands.choices[command]._actions:
        if action.option_strings and action.option_strings[0] not in FOLDERS:
            yield action


def run_line(arguments: list[str]) -> tuple[int, str]:
    """The exit status and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, said.getvalue()


def try_line(arguments: list[str], option: str) -> bool:
    """Whether the command was done; if not, it has to say why, and name the option."""
    status, said = run_line(arguments)
    if status == 0:
        return True
    last = said.strip().splitlines()[-1]
    name = option.removeprefix("--").removeprefix("no-")
    if status not in (1, 2) or not last.startswith("gankernels"):
        raise AssertionError(f"status {status}: {said}")
    words = {name, name.replace("-", "_"), *(["learning rate"] if name == "lr" else [])}
    if not any(word in last for word in words):
        raise AssertionError(f"the option is not named: {last}")
    return False


def lines(command: str) -> Iterator[tuple[str, list[str]]]:
    """An option, and it with a value."""
    for action in options(command):
        for option in action.option_strings:
            if action.nargs == 0:
                yield option, [option]
            else:
                yield from ((option, [f"{option}={value}"]) for value in VALUES)


def of_training(found: Found, root: Path, share: float) -> int:
    """Each line shown as a configuration, and trained where it is one."""
    done = 0

    def check(line: list[str], option: str) -> None:
        nonlocal done
        if try_line([*line, "--show-config"], option) and not line[-1].endswith(HUGE):
            done += try_line([*line, f"--out={root / str(found.cases)}"], option)

    for recipe in RECIPES if share == 1 else ["toy"]:
        for option, given in list(lines("train"))[:: 1 if share == 1 else 20]:
            line = ["train", recipe, *SMALL.split(), *given]
            found.attempt(" ".join(line), partial(check, line, option))
    return done


def of_what_reads_a_run(found: Found, root: Path, share: float) -> int:
    """The other commands, on a run."""
    done, trained = 0, str(root / "run")
    assert run_line(["train", "toy", *SMALL.split(), f"--out={trained}"])[0] == 0

    def check(line: list[str], option: str) -> None:
        nonlocal done
        if not line[-1].endswith(HUGE):
            done += try_line(line, option)

    for command in ("sample", "evaluate"):
        for option, given in list(lines(command))[:: 1 if share == 1 else 20]:
            line = [command, trained, f"--out={root / 'out'}", *given]
            found.attempt(" ".join(line), partial(check, line, option))
    return done


def run(share: float) -> Found:
    found, here = Found(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            done = of_training(found, Path(folder), share) + of_what_reads_a_run(
                found, Path(folder), share
            )
        finally:
            os.chdir(here)
    found.note = f"{done} of them were done"
    return found
