"""A run from its first step, or from its checkpoint, to its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from gankernels._extras import require
from gankernels.training import checkpoint, data
from gankernels.training import resume as resuming
from gankernels.training.config import TrainConfig
from gankernels.training.distributed import join
from gankernels.training.interruption import RunInterruptedError
from gankernels.training.sampling import load_generator, sampler
from gankernels.training.trainer import Trainer

__all__ = ["RunInterruptedError", "Trainer", "load_generator", "sampler", "train"]


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    loss: nn.Module | None = None,
    image_data: data.ImageData | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train a GAN and leave everything about it in a folder.

    The folder gets ``config.json``, ``metrics.jsonl``, ``samples/``, ``final.png``,
    ``samples.gif``, ``curves.png``, ``checkpoint.pt`` and ``report.html``. The global random state
    is seeded. Under ``torchrun`` every process calls this function and the first one writes.

    Args:
        config: See :class:`TrainConfig`; :func:`gankernels.training.configuration` makes one.
        run_dir: The folder.
        generator: Noise ``(N, config.noise_dim)`` to samples; None builds ``config.network``'s.
        discriminator: Samples to logits; None likewise.
        loss: A :class:`gankernels.GANLoss`; None takes ``config.loss``.
        image_data: The real samples; None loads ``config.data``.
        resume: Continue from the folder's checkpoint: bit for bit if nothing changed, else as
            :data:`gankernels.training.options.OPTIONS` says of each option. Processes that torchrun
            began anew (``--max-restarts``) go on with their own job's run without being told.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: The configuration is inconsistent, or the folder holds a run already.
        ImportError: A package that draws the run's pictures and curves is missing.
        NonFiniteError: A loss or gradient is no longer finite; the last checkpoint is kept.
        RunInterruptedError: SIGTERM or Ctrl-C; the run was saved.
        LostProcessError: Another process of the run is gone; the last checkpoint is kept.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run_dir = Path(run_dir)
    resume = resume or resuming.began_here(run_dir)
    # Before the first step rather than after the last one, where the curves are drawn.
    for module in ("PIL.Image", "matplotlib.figure", *(["tqdm"] if progress else [])):
        require(module)
    with join(config.device) as world:
        state = checkpoint.load(run_dir, world.device) if resume else None
        given: dict[str, Any] = {
            "generator": generator,
            "discriminator": discriminator,
            "loss": loss,
            "image_data": image_data,
        }
        if state is not None:
            here = {name for name, part in given.items() if part is not None}
            how = "loop.train(config, run_dir, resume=True, generator=..., ...)"
            resuming.check_given(state, set(given), here, how)
        trainer = Trainer(config, run_dir, world, **given)
        if state is not None:
            trainer.restore(state)
        elif (run_dir / "checkpoint.pt").exists():
            raise ValueError(f"{run_dir} holds a run already: resume it, or choose another folder")
        trainer.run(progress and world.is_main)
    return run_dir
