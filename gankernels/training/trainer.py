"""The training loop: steps, metrics, pictures, checkpoints, and a clean end for every cause."""

from __future__ import annotations

import random
import shutil
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gankernels import plots
from gankernels.lecam import LeCamPenalty
from gankernels.modules import RealnessLoss
from gankernels.training import (
    checkpoint,
    data,
    evaluation,
    options,
    parts,
    realness,
    report,
    run_folder,
    steps,
)
from gankernels.training import resume as resuming
from gankernels.training.config import TrainConfig
from gankernels.training.distributed import World, bare, job
from gankernels.training.graphs import GraphedStep
from gankernels.training.interruption import RunInterruptedError, stop_signals
from gankernels.training.losses import check_loss
from gankernels.training.metrics import MetricLog, NonFiniteError
from gankernels.training.modes import same_randomness
from gankernels.training.players import Metrics, Players, adam, grad_scaler, prepare
from gankernels.training.progress import Silent, bar_of
from gankernels.training.sampling import fixed_noise, generate
from gankernels.training.updates import continue_average

__all__ = ["Trainer"]


class Trainer:
    """The state of a run. :func:`train` is the way to use it; its parts are here to be looked at.

    Args:
        config: The configuration.
        run_dir: Where everything goes.
        world: This process among the others.
        generator, discriminator, loss, image_data: What replaces the configuration's own.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        world: World,
        *,
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        loss: nn.Module | None = None,
        image_data: data.ImageData | None = None,
    ) -> None:
        self.config, self.run_dir, self.world = config, run_dir, world
        self.done = 0
        handed = {
            "generator": generator,
            "discriminator": discriminator,
            "loss": loss,
            "image_data": image_data,
        }
        self.given = {k: type(v).__name__ for k, v in handed.items() if v is not None}
        if loss is not None:
            check_loss(loss)
        _seed(config.seed)
        if generator is None or discriminator is None:
            if generator is None:
                by_name = config.data == "gaussians"
                points = by_name if image_data is None else image_data.images.dim() == 2
                parts.check_network(config, points)
            built = parts.build_networks(config)
            generator = built[0] if generator is None else generator
            discriminator = built[1] if discriminator is None else discriminator
        parts.check_batch(config, generator, discriminator)
        self.loss = (parts.make_loss(config) if loss is None else loss).to(world.device)
        if config.step_kind == "ratio":
            steps.check_ratio(discriminator, self.loss)
        self._build_players(generator.to(world.device), discriminator.to(world.device))
        self._build_stream(_load_data(config) if image_data is None else image_data)
        # Dropout and the noise differ between processes, the networks and the data order do not.
        _seed(config.seed + 1_000_003 * world.rank)
        self.noise_generator = torch.Generator(world.device)
        self.noise_generator.manual_seed(config.seed + 1 + 1_000_003 * world.rank)
        self.noise = parts.make_noise(config, world.device, self.noise_generator)
        self.graphed: GraphedStep | None = None
        if config.step.cuda_graph:
            self.graphed = GraphedStep(
                self._update, self.players, config.step, [self.noise_generator]
            )
        self.metrics = MetricLog(
            run_dir / "metrics.jsonl", world, scaled=self.players.scaler is not None
        )

    def _build_players(self, generator: nn.Module, discriminator: nn.Module) -> None:
        config, step = self.config, self.config.step
        if config.sync_batchnorm:
            self.world.check_sync_batchnorm(generator, discriminator)
        if config.find_unused_parameters and self.world.size == 1:
            raise ValueError("find_unused_parameters has no effect: there is one process only")
        self.ema: AveragedModel | None = None
        self._averaged = False  # whether an update of the average is known to be behind it
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            try:
                device = self.world.device
                self.ema = AveragedModel(generator, device, multi_avg_fn=average, use_buffers=True)
            except RuntimeError as error:  # the hooks of torch.nn.utils.weight_norm
                raise ValueError(
                    f"ema needs a copy of the generator, which cannot be copied ({error}): use "
                    "torch.nn.utils.parametrizations for its weight or spectral norm, or ema=0"
                ) from error
            prepare(self.ema, replace(step, compile=False))
        generator, discriminator = (
            self.world.wrap(prepare(n, step), config.sync_batchnorm, config.find_unused_parameters)
            for n in (generator, discriminator)
        )
        of_g, of_d = list(generator.parameters()), list(discriminator.parameters())
        betas = (config.beta1, config.beta2)
        if config.shared_optimizer:
            shared = adam(of_g + of_d, config.g_lr, betas, step)
            self.optimizers = [shared]
        else:
            self.optimizers = [
                adam(of_g, config.g_lr, betas, step),
                adam(of_d, config.d_lr, betas, step),
            ]
        scaler = grad_scaler(step, self.world.device)
        lecam = LeCamPenalty().to(self.world.device) if step.lecam else None
        self.players = Players(
            generator, discriminator, self.optimizers[0], self.optimizers[-1], scaler, lecam
        )
        decay = resuming.Decay(config.steps, config.decay)
        self.schedulers = [LambdaLR(o, decay) for o in self.optimizers]

    def _build_stream(self, image_data: data.ImageData) -> None:
        config, world = self.config, self.world
        self.data_name, self.centres = image_data.name, image_data.centres
        self.data_summary = image_data.summary
        on_device = data.ImageData(
            image_data.images.to(world.device), name=image_data.name
        )  # labels are not needed to train
        self.stream = data.BatchStream(
            on_device,
            config.batch_size,
            seed=config.seed,
            value_range=config.value_range,
            flip=config.flip,
            rank=world.rank,
            world_size=world.size,
        )

    # ------------------------------------------------------------------------------- running

    def run(self, progress: bool = True) -> None:
        """Train until ``config.steps`` are done, a signal comes, or a value is not finite."""
        if progress and self.data_summary:
            print(self.data_summary)
        self._open(progress)
        config = self.config
        name = f"{config.recipe} on {self.data_name}"
        shown = bar_of(name, config.steps, self.done) if progress else Silent()
        with stop_signals() as stop, shown as bar:
            while self.done < config.steps:
                self.step()
                bar.update()
                logged = self.done % config.log_every == 0
                if self.done % config.sample_every == 0 or self.done == config.steps:
                    self.sample()
                if logged or self.done == config.steps:
                    self._log(bar)
                if self.done % config.checkpoint_every == 0 or self.done == config.steps:
                    self.save()
                # Processes must agree on when to stop, and talk only when they log.
                if (self.world.size == 1 or logged) and self.world.any(bool(stop)):
                    self.save()
                    self._finish()
                    raise RunInterruptedError(self.done, stop[0] if stop else signal.SIGTERM)
        self._finish()

    def step(self) -> None:
        """One training step."""
        update = self._update if self.graphed is None else self.graphed
        if isinstance(self.loss, RealnessLoss) and self.loss.draw is not None:
            self.loss.redraw()  # beside a graph, whose replays read the anchors in place
        metrics = update(next(self.stream), self.done)
        for scheduler in self.schedulers:
            scheduler.step()
        self.done += 1
        self.metrics.add(self.done, metrics)

    def _update(self, real: Tensor, iteration: int) -> Metrics:
        """What a step does on the device."""
        run = steps.STEPS[self.config.step_kind]
        metrics = run(self.players, self.loss, real, self.noise, self.config.step, iteration)
        if self.ema is not None:
            average = continue_average if self._averaged else AveragedModel.update_parameters
            average(self.ema, bare(self.players.generator))
            self._averaged = True
        return metrics

    def _open(self, progress: bool) -> None:
        self._writer = None
        self._clock = (time.perf_counter(), self.done)
        if not self.world.is_main:
            return
        (self.run_dir / "samples").mkdir(parents=True, exist_ok=True)
        if self.done == 0:
            run_folder.clear(self.run_dir)
        elif self.done < self.config.steps:
            scores = self.run_dir / "evaluation.json"
            if scores in run_folder.drop_beyond(self.run_dir, self.done) and progress:
                print(
                    f"{scores} was removed: it scored the run at an earlier step; evaluate it anew"
                )
        self.config.save(self.run_dir / "config.json")
        if self.done == 0:
            self.metrics.path.write_text("", encoding="utf-8")
            self.sample()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(
            str(self.run_dir / "tensorboard"), purge_step=self.done + 1 if self.done else 0
        )

    def _log(self, bar: Any) -> None:
        since, at = self._clock
        now = time.perf_counter()
        images = (self.done - at) * self.config.batch_size * self.world.size
        self._clock = (now, self.done)
        record = self.metrics.write(self.done, images_per_second=round(images / (now - since), 1))
        shown = ("d_loss", "g_loss", "images_per_second", "modes_recovered")
        bar.set_postfix({k: f"{record[k]:.4g}" for k in shown if k in record}, refresh=False)
        if self._writer is not None:
            for name, value in record.items():
                if not isinstance(value, list):
                    self._writer.add_scalar(name, value, self.done)

    # ------------------------------------------------------------------------------ pictures

    def sample(self) -> None:
        """Save what the generator makes of the fixed noise."""
        if not self.world.is_main:
            return
        network = bare(self.players.generator) if self.ema is None else self.ema
        path = self.run_dir / "samples" / f"step_{self.done:07d}.png"
        # A generator may draw in its forward pass: a picture must not change the run.
        with same_randomness(self.world.device):
            samples = generate(network, fixed_noise(self.config, self.world.device))
        self._check_shape(samples)
        value_range, centres = self.config.value_range, self.centres
        plots.save_samples(samples, path, value_range=value_range, centres=centres)
        if centres is not None:
            self.metrics.note(evaluation.evaluate_mixture(samples, centres, data.GAUSSIAN_SIGMA))
        if isinstance(self.loss, RealnessLoss):
            shown = self.stream.peek(len(samples)), samples.to(self.world.device)
            discriminator = bare(self.players.discriminator)
            self.metrics.note(realness.distributions(discriminator, self.loss, *shown))

    def _check_shape(self, samples: Tensor) -> None:
        """Refuse, before the first step, a generator whose samples are not like the data."""
        wanted, found = self.stream.data.sample_shape, tuple(samples.shape[1:])
        if wanted != found:
            raise ValueError(
                f"the generator makes samples of shape {found}, and {self.data_name} has samples of "
                f"shape {wanted}: change the network, image_size or channels, or the data"
            )

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if not self.world.is_main:
            return
        frames = run_folder.frames(self.run_dir)
        plots.save_animation(frames, self.run_dir / "samples.gif")
        shutil.copyfile(frames[-1], self.run_dir / "final.png")
        if self.metrics.path.stat().st_size:
            report.write_report(self.run_dir)  # draws the curves too

    # ---------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write ``checkpoint.pt``, unless the run is no longer finite.

        Raises:
            NonFiniteError: A metric or a weight is NaN or infinite; the old checkpoint stays.
        """
        pending = self.metrics.state_dict()
        for name in ("generator", "discriminator"):
            network = getattr(self.players, name)
            self.world.align_buffers(network)
            norm = nn.utils.get_total_norm([p.detach() for p in network.parameters()])
            if not norm.isfinite():
                raise NonFiniteError(
                    f"the weights of the {name} are not finite at step {self.done}"
                )
        if self.players.lecam is not None:
            self.world.align_buffers(self.players.lecam)
        own = checkpoint.random_states(self.noise_generator, self.world.device)
        processes = self.world.gather(own)
        if self.world.is_main:
            checkpoint.save(
                self.run_dir / "checkpoint.pt",
                {"step": self.done, "metrics": pending, "processes": processes, **self._states()},
            )
        self.world.barrier()

    def _states(self) -> dict[str, Any]:
        players = self.players
        return {
            "config": self.config.to_dict(),
            "job": job(),
            "given": dict(self.given),
            "generator": bare(players.generator).state_dict(),
            "discriminator": bare(players.discriminator).state_dict(),
            "loss": self.loss.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "scaler": None if players.scaler is None else players.scaler.state_dict(),
            "lecam": None if players.lecam is None else players.lecam.state_dict(),
            "stream": self.stream.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint, under a configuration that may differ from its own.

        :data:`gankernels.training.options.OPTIONS` says what each change does. Another number of
        processes, another batch size and other data are allowed and warned of: from there on the
        run is not bit for bit what it would have been.

        Raises:
            ValueError: A change cannot be obeyed, or the checkpoint is of other networks.
        """
        before = TrainConfig.from_dict(state["config"])
        options.check_resume(before, self.config, state["step"])
        players = self.players
        for name in ("generator", "discriminator"):
            resuming.load_network(bare(getattr(players, name)), state[name], "the checkpoint")
        resuming.restore_loss(self.loss, state["loss"], before, self.config)
        resuming.restore_average(self.ema, state["ema"], bare(players.generator))
        self._averaged = False
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            resuming.restore_optimizer(optimizer, saved)
        for scheduler in self.schedulers:
            resuming.restore_schedule(scheduler, state["step"])
        if players.scaler is not None and state["scaler"] is not None:
            players.scaler.load_state_dict(state["scaler"])
        if players.lecam is not None and state.get("lecam") is not None:
            players.lecam.load_state_dict(state["lecam"])
        if self.graphed is not None:
            self.graphed.forget()  # the optimizers have other tensors
        changed = [resuming.restore_stream(self.stream, state["stream"])]
        self.done = state["step"]
        self.metrics.load_state_dict(state["metrics"], self.done)
        changed.append(self._restore_random_states(state["processes"]))
        if self.world.is_main and any(changed):
            what = "; ".join(filter(None, changed))
            warnings.warn(f"resumed, but no longer bit for bit: {what}", stacklevel=3)

    def _restore_random_states(self, processes: list[dict[str, Any]]) -> str | None:
        """Continue every random stream; a process the checkpoint lacks keeps its fresh one."""
        if self.world.rank < len(processes):
            own = processes[self.world.rank]
            if own["noise"].shape != self.noise_generator.get_state().shape:
                return "the noise starts anew (another kind of device draws it)"
            checkpoint.restore_random_states(own, self.noise_generator, self.world.device)
        if len(processes) == self.world.size:
            return None
        return f"the noise is shared out anew (processes {len(processes)} -> {self.world.size})"


def _seed(seed: int) -> None:
    """Seed every global generator; the run itself draws from PyTorch's alone."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # where there is none, torch.manual_seed keeps a stack trace for each kind that there might be
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _load_data(config: TrainConfig) -> data.ImageData:
    return data.load(config.data, image_size=config.image_size, channels=config.channels)
