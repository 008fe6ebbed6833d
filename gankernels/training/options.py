"""Which options of a run have an effect, and which of them may change when it is resumed.

:data:`OPTIONS` has one row for each field of :class:`TrainConfig` and :class:`StepConfig`. What was
*requested* (on the command line, in ``configuration(**changes)``, as a difference from the
checkpoint) is obeyed or refused; what a preset merely carries along may lie idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from gankernels.training.config import StepConfig, TrainConfig

__all__ = [
    "LOSS_OPTIONS",
    "OPTIONS",
    "Option",
    "check_loss_options",
    "check_requested",
    "check_resume",
    "settled",
    "value",
]

FREE = "takes effect at once"
OPTIMIZER = "set anew in the optimizers, whose moments stay"
SCHEDULE = "the learning rates follow the new plan from here on"
STREAM = "the data starts a new epoch"
LOSS = "the loss is built anew"


def _never(_config: TrainConfig) -> str | None:
    return None


def _allowed(_before: TrainConfig, _after: TrainConfig, _done: int) -> str | None:
    return None


@dataclass(frozen=True)
class Option:
    """What is known of one option.

    Args:
        on_resume: What a change does to a resumed run, or why it is refused.
        idle: Why the option has no effect in a configuration; None where it has one.
        refusal: Why a run of the first configuration cannot go on, after so many steps, with the
            second one; None where it can.
    """

    on_resume: str
    idle: Callable[[TrainConfig], str | None] = _never
    refusal: Callable[[TrainConfig, TrainConfig, int], str | None] = _allowed


def _fixed(why: str) -> Option:
    return Option(why, refusal=lambda _before, _after, _done: why)


def _also_idle(option: Option, idle: Callable[[TrainConfig], str | None]) -> Option:
    return replace(option, idle=idle)


# ------------------------------------------------------------------------------ no effect where


def _only(kind: str) -> Callable[[TrainConfig], str | None]:
    def idle(config: TrainConfig) -> str | None:
        if config.step_kind == kind:
            return None
        return f"only the {kind} step has it, and step_kind is {config.step_kind!r}"

    return idle


def _images_only(name: str) -> Callable[[TrainConfig], str | None]:
    def idle(config: TrainConfig) -> str | None:
        if config.data != "gaussians" or value(config, name) in (None, False):
            return None
        return f"it is about images, and data={config.data!r} are points"

    return idle


def _channels_last(config: TrainConfig) -> str | None:
    if config.data != "gaussians":
        return None
    return f"points have one memory format, and data={config.data!r} are points"


def _d_lr(config: TrainConfig) -> str | None:
    if config.shared_optimizer and config.d_lr != config.g_lr:
        return f"both networks share one optimizer, whose learning rate is g_lr={config.g_lr}"
    return None


def _outcomes(config: TrainConfig) -> str | None:
    if config.loss == "realness":
        return None
    return f"only the realness loss has outcomes, and loss is {config.loss!r}"


def _loss_options(config: TrainConfig) -> str | None:
    if config.loss == "custom" and config.loss_options:
        return "a custom loss is handed over with its options"
    return None


def _generator_only(config: TrainConfig) -> str | None:
    if config.step_kind != "reversal":
        return None
    return (
        "it is of the generator's loss, and a reversal step trains both networks with the other one"
    )


def _r1_every(config: TrainConfig) -> str | None:
    if config.step.r1_gamma or config.step.r2_gamma:
        return None
    return "r1_gamma is 0, which leaves the R1 penalty out, and r2_gamma is 0 too"


def _grad_norms(config: TrainConfig) -> str | None:
    if config.step.grad_norms or config.step.clip is None:
        return None
    return "clip measures the gradient norms in any case"


# --------------------------------------------------------------------------- refused on resume


def _steps(_before: TrainConfig, after: TrainConfig, done: int) -> str | None:
    return None if after.steps >= done else f"the checkpoint is of step {done} already"


def _loss(before: TrainConfig, after: TrainConfig, _done: int) -> str | None:
    if (before.loss == "realness") == (after.loss == "realness"):
        return None
    return "the realness loss needs a discriminator with other outputs; start a new run"


_OTHER_NETWORKS = "the checkpoint is of other networks; start a new run"
_HISTORY = "it names what the run began as; give the options that are to change themselves"

OPTIONS: dict[str, Option] = {
    "recipe": _fixed(_HISTORY),
    "preset": _fixed(_HISTORY),
    "network": _fixed(_OTHER_NETWORKS),
    "network_options": _fixed(_OTHER_NETWORKS),
    "data": Option(STREAM + " where the number of samples differs"),
    "image_size": _also_idle(_fixed(_OTHER_NETWORKS), _images_only("image_size")),
    "channels": _also_idle(_fixed(_OTHER_NETWORKS), _images_only("channels")),
    "value_range": _also_idle(
        _fixed("the networks have learnt it; start a new run"), _images_only("value_range")
    ),
    "flip": Option(STREAM, idle=_images_only("flip")),
    "loss": Option(LOSS, refusal=_loss),
    "loss_options": Option(LOSS, idle=_loss_options),
    "outcomes": _also_idle(_fixed(_OTHER_NETWORKS), _outcomes),
    "step_kind": Option(FREE),
    "steps": Option(SCHEDULE, refusal=_steps),
    "batch_size": Option(STREAM),
    "noise": Option(FREE),
    "noise_dim": _fixed(_OTHER_NETWORKS),
    "g_lr": Option(OPTIMIZER),
    "d_lr": Option(OPTIMIZER, idle=_d_lr),
    "beta1": Option(OPTIMIZER),
    "beta2": Option(OPTIMIZER),
    "shared_optimizer": _fixed("the checkpoint has the moments of other optimizers"),
    "decay": Option(SCHEDULE),
    "ema": Option("an average begins at the weights of the checkpoint, or is dropped"),
    "seed": _fixed("every random state comes from the checkpoint; start a new run"),
    "device": Option(FREE),
    "threads": Option(FREE),
    "sync_batchnorm": Option(FREE),  # one process has nothing to share, which Trainer refuses
    "find_unused_parameters": Option(FREE),  # likewise
    "log_every": Option(FREE),
    "sample_every": Option(FREE),
    "checkpoint_every": Option(FREE),
    "samples": _fixed("the run has pictures of another size; draw others with `sample`"),
    "order": Option(FREE, idle=_only("alternating")),
    "fake_first": Option(FREE),
    "g_updates": Option(FREE, idle=_only("alternating")),
    "alpha": Option(FREE, idle=_only("reversal")),
    "amp": Option("takes effect at once; a new loss scale begins where fp16 is new"),
    "accumulate": Option(FREE),
    "clip": Option(FREE),
    "r1_gamma": Option(FREE),
    "r2_gamma": Option(FREE),
    "r1_every": Option(FREE, idle=_r1_every),
    "lecam": Option("new averages begin, or those of the checkpoint are dropped"),
    "grad_norms": Option(FREE, idle=_grad_norms),
    "channels_last": Option(FREE, idle=_channels_last),
    "compile": Option(FREE),
    "optimizer": Option(OPTIMIZER),
    "cuda_graph": Option(FREE),  # refused where there is no CUDA device
}

LOSS_OPTIONS: dict[str, Option] = {
    "objective": Option(LOSS, idle=_generator_only),
    "saturating": Option(LOSS, idle=_generator_only),
}
"""Options of a loss that not every step obeys."""

# -------------------------------------------------------------------------------------- checks


def value(config: TrainConfig, name: str) -> Any:
    """A field of the configuration or of its step."""
    return getattr(config.step if name in _STEP_NAMES else config, name)


_STEP_NAMES = frozenset(f.name for f in fields(StepConfig))


def differences(before: TrainConfig, after: TrainConfig) -> list[str]:
    """The options in which two configurations differ."""
    return [name for name in OPTIONS if value(before, name) != value(after, name)]


def check_requested(config: TrainConfig, requested: Iterable[str]) -> None:
    """Refuse what was requested and would have no effect.

    Args:
        config: The configuration that results.
        requested: Names of options.

    Raises:
        ValueError: One of them has no effect; the message names it and says why.

    Example:
        >>> check_requested(TrainConfig(), ["alpha"])
        Traceback (most recent call last):
        ValueError: alpha has no effect: only the reversal step has it, and step_kind is 'alternating'
    """
    for name in requested:
        reason = OPTIONS[name].idle(config) if name in OPTIONS else None
        if reason is not None:
            raise ValueError(f"{name} has no effect: {reason}")


def check_loss_options(config: TrainConfig, requested: Iterable[str]) -> None:
    """Refuse keys of ``loss_options`` that were requested and would have no effect.

    Raises:
        ValueError: One of them has no effect; the message names it and says why.
    """
    for name in requested:
        reason = LOSS_OPTIONS[name].idle(config) if name in LOSS_OPTIONS else None
        if reason is not None:
            raise ValueError(f"loss option {name} has no effect: {reason}")


def _changed_loss_options(before: TrainConfig, after: TrainConfig) -> list[str]:
    """The keys whose values differ; all where the loss is another one."""
    old = before.loss_options if before.loss == after.loss else {}
    return [k for k, v in after.loss_options.items() if k not in old or old[k] != v]


def check_resume(before: TrainConfig, after: TrainConfig, done: int) -> None:
    """Refuse what a run cannot change once it has begun.

    Args:
        before: The configuration of the checkpoint.
        after: The configuration to go on with.
        done: Steps that the checkpoint has behind it.

    Raises:
        ValueError: A change cannot be obeyed; the message names the option and says why.
    """
    changed = differences(before, after)
    for name in changed:
        reason = OPTIONS[name].refusal(before, after, done)
        if reason is not None:
            raise ValueError(
                f"{name} cannot change from {value(before, name)!r} to {value(after, name)!r} "
                f"on resume: {reason}"
            )
    check_requested(after, changed)
    check_loss_options(after, _changed_loss_options(before, after))


def settled(base: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """``base`` with ``changes``, what follows from them, and nothing requested in vain.

    A preset's ``loss_options`` and ``network_options`` belong to its own loss and network.

    Raises:
        ValueError: A name is unknown, a value is out of range, or a change has no effect.
    """
    changes = dict(changes)
    for owner in ("loss", "network"):
        if changes.get(owner, getattr(base, owner)) != getattr(base, owner):
            changes.setdefault(f"{owner}_options", {})
    config = base.but(**changes)
    requested = [name for name in changes if name != "step"]
    if "step" in changes:
        requested += [name for name in differences(base, config) if name in _STEP_NAMES]
    check_requested(config, requested)
    check_loss_options(config, _changed_loss_options(base, config))
    return config
