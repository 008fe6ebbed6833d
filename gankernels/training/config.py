"""The configuration of a run: two dataclasses, saved beside the run and enough to repeat it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gankernels._files import read_object, write_whole
from gankernels.training.field_checks import (
    check_choice,
    check_positive,
    check_seed,
    check_share,
    check_types,
)
from gankernels.training.losses import LOSSES
from gankernels.training.step_config import StepConfig
from gankernels.training.steps import STEPS

__all__ = ["StepConfig", "TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run. Defaults of a recipe: ``recipes.configuration(name)``.

    :data:`gankernels.training.options.OPTIONS` says of every field where it has no effect and what
    its change does to a run that is resumed.

    Args:
        recipe: Name of a registered recipe, or ``"custom"`` for networks handed over in Python.
        preset: Which of the recipe's presets this configuration started from.
        network: Name of the pair in :mod:`gankernels.training.networks`.
        network_options: Further keyword arguments of that builder.
        data: A specification that :func:`gankernels.training.data.load` understands.
        image_size: Height and width the images are resized to; None for points.
        channels: 1 (grey), 3 (colour) or None for points.
        value_range: What black and white become.
        flip: Mirror every image with probability one half.
        loss: One of the package's losses.
        loss_options: Keyword arguments of :func:`gankernels.training.parts.make_loss`.
        outcomes: Logits per sample of the realness loss; every other loss has one.
        step_kind: ``"alternating"``, ``"reversal"``, ``"one_pass"`` or ``"ratio"``.
        step: Options of the step.
        steps: Number of steps (an alternating step updates both players).
        batch_size: Real images per step and process.
        noise: ``"normal"`` or ``"uniform"`` on ``[0, 1)``.
        noise_dim: Width of the noise.
        g_lr, d_lr: Learning rates of Adam.
        beta1, beta2: Its moment decays.
        shared_optimizer: One Adam for both networks, as in the first article.
        decay: Share of the run, at its end, over which the learning rates fall linearly to zero.
        ema: Decay of the generator's weight average, which samples then come from; 0 for none.
        seed: Seed of the networks, the noise, the order of the data and the anchors.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        threads: CPU threads; None keeps PyTorch's choice.
        sync_batchnorm: Under ``torchrun``, share batch statistics between processes.
        find_unused_parameters: Under ``torchrun``, allow parameters that get no gradient in a step;
            without it DistributedDataParallel waits for theirs, and stops.
        log_every, sample_every, checkpoint_every: Steps between lines, pictures and checkpoints.
        samples: Pictures in a grid.

    Raises:
        TypeError: A field is not of its type.
        ValueError: A field is outside its range, or two of them exclude each other.
    """

    recipe: str = "realness"
    preset: str = "quick"
    network: str = "realness_article"
    network_options: dict[str, Any] = field(default_factory=dict)
    data: str = "digits"
    image_size: int | None = 32
    channels: int | None = 1
    value_range: tuple[float, float] = (0.0, 1.0)
    flip: bool = False
    loss: str = "realness"
    loss_options: dict[str, Any] = field(default_factory=dict)
    outcomes: int = 20
    step_kind: str = "alternating"
    step: StepConfig = field(default_factory=StepConfig)
    steps: int = 1000
    batch_size: int = 128
    noise: str = "normal"
    noise_dim: int = 100
    g_lr: float = 1e-4
    d_lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    shared_optimizer: bool = False
    decay: float = 0.0
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    sync_batchnorm: bool = False
    find_unused_parameters: bool = False
    log_every: int = 20
    sample_every: int = 200
    checkpoint_every: int = 500
    samples: int = 64

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("loss", self.loss, (*LOSSES, "custom"))
        check_choice("step_kind", self.step_kind, STEPS)
        check_choice("noise", self.noise, ("normal", "uniform"))
        counts = ("steps", "batch_size", "noise_dim", "outcomes", "samples")
        for name in (*counts, "log_every", "sample_every", "checkpoint_every"):
            check_positive(name, getattr(self, name))
        check_seed(self.seed)
        self.step.check_kind(self.step_kind)
        if self.step.lecam and self.loss == "realness":
            raise ValueError(
                f"lecam must be 0 with the realness loss, whose D gives a distribution and no logit to "
                f"hold near an average, got {self.step.lecam}"
            )
        for name in ("decay", "ema"):
            check_share(name, getattr(self, name))
        for name in ("image_size", "channels", "threads"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        for name in ("g_lr", "d_lr"):
            check_positive(name, getattr(self, name), 0)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")
        low, high = self.value_range
        if not low < high:
            raise ValueError(
                f"value_range must be what black and white become, in this order, got {low}, {high}"
            )
        if self.batch_size % self.step.accumulate:
            raise ValueError(
                f"accumulate={self.step.accumulate} must divide batch_size={self.batch_size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text, lists and dictionaries, as JSON and a checkpoint hold them."""
        return {**asdict(self), "value_range": list(self.value_range)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: A key is unknown.
        """
        _check_keys(cls, values)
        values = dict(values)
        if isinstance(values.get("step"), dict):
            _check_keys(StepConfig, values["step"])
            values["step"] = StepConfig(**values["step"])
        if "value_range" in values:
            values["value_range"] = tuple(values["value_range"])
        return cls(**values)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds no configuration, or one of something impossible; the message names the file.
        """
        values = read_object(path)
        try:
            return cls.from_dict(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def but(self, **changes: Any) -> TrainConfig:
        """This configuration with some fields changed; names of step options work too.

        A shared optimizer has one learning rate, so ``d_lr`` follows ``g_lr`` there.

        Example:
            >>> TrainConfig().but(steps=10, clip=1.0).step.clip
            1.0
        """
        step_names = {f.name for f in fields(StepConfig)}
        step = {k: v for k, v in changes.items() if k in step_names}
        rest = {k: v for k, v in changes.items() if k not in step_names}
        known = {f.name for f in fields(self)}
        unknown = set(rest) - known
        if unknown:
            raise ValueError(f"unknown configuration names: {', '.join(sorted(unknown))}")
        if step:
            rest["step"] = replace(rest.get("step", self.step), **step)
        changed = replace(self, **rest)
        if changed.shared_optimizer and "d_lr" not in rest:
            changed = replace(changed, d_lr=changed.g_lr)
        return changed


def _check_keys(owner: type[TrainConfig | StepConfig], values: dict[str, Any]) -> None:
    unknown = set(values) - {f.name for f in fields(owner)}
    if unknown:
        raise ValueError(f"unknown configuration keys: {', '.join(sorted(unknown))}")
