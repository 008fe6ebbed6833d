"""What the commands of :mod:`gankernels.training.cli` do; each returns the exit status."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import gankernels as gk
from gankernels import plots
from gankernels._files import naming_file, write_whole
from gankernels.training import (
    checkpoint,
    data,
    distributed,
    evaluation,
    loop,
    malloc,
    options,
    recipes,
    report,
    resume,
    run_folder,
    sampling,
)
from gankernels.training.config import StepConfig, TrainConfig
from gankernels.training.field_checks import check_positive

__all__ = ["evaluate", "info", "sample", "train"]


def train(arguments: argparse.Namespace) -> int:
    """Train a GAN, or go on with a run."""
    changes = _changes(arguments)
    if arguments.resume:
        run_dir = Path(arguments.resume)
        if run_dir.is_file():
            if run_dir.name != "checkpoint.pt":
                raise ValueError(f"a run goes on from its checkpoint.pt, got {run_dir}")
            run_dir = run_dir.parent
        state = checkpoint.load(run_dir)
        config = _resumed(arguments, run_dir, state, changes)
    else:
        recipe = arguments.recipe or "realness"
        changes = _with_loss_options(changes, recipes.configuration(recipe, arguments.preset))
        config = recipes.configuration(recipe, arguments.preset, **changes)
        run_dir = Path(arguments.out) if arguments.out else _free_folder(Path("runs"), config)
    # Also where the preset has the same value: the command line asked for it.
    options.check_loss_options(config, dict(arguments.loss_option or []))
    if arguments.show_config:
        print(json.dumps(config.to_dict(), indent=2))
        return 0
    if not arguments.release_pages:
        malloc.keep_pages()
    loop.train(config, run_dir, resume=bool(arguments.resume), progress=not arguments.quiet)
    if not arguments.quiet:
        _tell(run_dir, config)
    return 0


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says differently from the preset."""
    names = {f.name for f in (*fields(TrainConfig), *fields(StepConfig))} - {"recipe", "preset"}
    found = {k: v for k, v in vars(arguments).items() if k in names and v is not None}
    if arguments.lr is not None:
        found = {"g_lr": arguments.lr, "d_lr": arguments.lr} | found
    loss_options = dict(arguments.loss_option or [])
    if loss_options:
        found["loss_options"] = loss_options
    return found


def _with_loss_options(changes: dict[str, Any], base: TrainConfig) -> dict[str, Any]:
    """The loss options given, beside the others of the same loss."""
    if "loss_options" not in changes or changes.get("loss", base.loss) != base.loss:
        return changes
    return {**changes, "loss_options": base.loss_options | changes["loss_options"]}


def _resumed(
    arguments: argparse.Namespace, run_dir: Path, state: dict[str, Any], changes: dict[str, Any]
) -> TrainConfig:
    """The configuration of a checkpoint with the changes of the command line."""
    before = TrainConfig.from_dict(state["config"])
    if arguments.recipe not in (None, before.recipe):
        raise ValueError(f"{run_dir} is a run of {before.recipe}, got {arguments.recipe}")
    for name, instead in (
        ("preset", "the run has its configuration; give the options that are to change"),
        ("out", "a run goes on in its own folder; copy the folder to keep it as it is"),
    ):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} cannot be given with --resume: {instead}")
    config = options.settled(before, _with_loss_options(changes, before))
    options.check_resume(before, config, state["step"])
    return config


def _free_folder(parent: Path, config: TrainConfig) -> Path:
    """The first of NAME, NAME-2, NAME-3, ... that holds no run; of restarted processes, their own run's."""
    first = next(iter(recipes.RECIPES[config.recipe].presets))
    name = config.recipe if config.preset == first else f"{config.recipe}-{config.preset}"
    folder = last = parent / name
    number = 1
    while run_folder.holds_a_run(folder):
        number += 1
        last, folder = folder, parent / f"{name}-{number}"
    return last if resume.began_here(last) else folder


def _tell(run_dir: Path, config: TrainConfig) -> None:
    if int(os.environ.get("RANK", 0)):
        return
    last = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    shown = {k: v for k, v in json.loads(last).items() if k != "step" and not isinstance(v, list)}
    print(f"step {config.steps}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown.items()))
    print(f"pictures, curves, metrics, configuration and checkpoint: {run_dir}")
    print(f"one page with all of it: {run_dir / 'report.html'}")


def sample(arguments: argparse.Namespace) -> int:
    """Draw samples from a checkpoint."""
    check_positive("samples", arguments.samples)
    arguments.device = str(distributed.pick_device(arguments.device))
    network, config = sampling.load_generator(arguments.checkpoint, arguments.device)
    draw = sampling.sampler(network, config, arguments.device, arguments.seed)
    samples = draw(arguments.samples)
    columns = 8 if arguments.columns is None else arguments.columns
    out = Path(arguments.out)
    if samples.dim() == 2 and arguments.columns is not None:
        raise ValueError("columns has no effect: the samples are points, which make no grid")
    plots.save_samples(
        samples,
        out,
        value_range=config.value_range,
        centres=data.gaussian_centres() if config.data == "gaussians" else None,
        columns=columns,
    )
    if arguments.tensor:
        with naming_file(arguments.tensor), open(arguments.tensor, "wb") as file:
            checkpoint.save_tensors(samples, file)
    print(out)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a checkpoint's samples."""
    arguments.device = str(distributed.pick_device(arguments.device))
    state = checkpoint.load(Path(arguments.checkpoint), arguments.device)
    network, config = sampling.generator_of(state, arguments.checkpoint, arguments.device)
    if not arguments.data:
        how = "evaluation.evaluate_run(...), or name other data with --data"
        resume.check_given(state, {"image_data"}, set(), how)
    spec = arguments.data or config.data
    image_data = data.load(spec, image_size=config.image_size, channels=config.channels)
    result = evaluation.evaluate_run(
        sampling.sampler(network, config, arguments.device, arguments.seed),
        image_data,
        arguments.samples,
        arguments.device,
        value_range=config.value_range,
        seed=arguments.seed,
    )
    text = json.dumps(result, indent=2)
    print(text)
    place = Path(arguments.checkpoint)
    run_dir = place if place.is_dir() else place.parent
    out = Path(arguments.out) if arguments.out else run_dir / "evaluation.json"
    write_whole(out, lambda part: part.write_text(text + "\n", encoding="utf-8"))
    if out.parent == run_dir and (run_dir / "report.html").exists():
        report.write_report(run_dir)
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Say what was built, against what, and what runs where; with ``--check``, whether it computes right."""
    found = gk.build_info()
    if arguments.check:
        from gankernels.testing import check_installation  # the other commands start without it

        found["check"] = check_installation()
    print(json.dumps(found, indent=2, default=str))
    return int(any(device["failures"] for device in found.get("check", {}).values()))
