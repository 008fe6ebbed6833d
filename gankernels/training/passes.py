"""Forward passes of a step, and the tensors and gradients that its backward passes start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gankernels as gk
from gankernels.training.losses import StepLoss
from gankernels.training.players import Metrics, Players
from gankernels.training.step_config import StepConfig

__all__ = [
    "DiscriminatorRoots",
    "autocast",
    "batch_format",
    "cotangent_of",
    "frozen",
    "full_precision",
    "micro_batches",
    "no_sync",
]


class DiscriminatorRoots:
    """D's forward on both batches, and the tensors and cotangents that its backward starts from."""

    def __init__(
        self,
        players: Players,
        loss: StepLoss,
        real: Tensor,
        fake: Tensor,
        config: StepConfig,
        iteration: int,
    ) -> None:
        due = config.penalty_due(iteration)
        r1_gamma, r2_gamma = (g if due else 0.0 for g in (config.r1_gamma, config.r2_gamma))
        if r1_gamma:
            real = real.detach().requires_grad_()
        if r2_gamma and not fake.requires_grad:
            fake = fake.detach().requires_grad_()
        with autocast(real, config):
            real_root, fake_root = _both(players.discriminator, real, fake, config.fake_first)
        real_root, self.fake_root = full_precision(real_root), full_precision(fake_root)
        self.real_logits, self.fake_logits = real_root.detach(), self.fake_root.detach()
        value, gradients = loss.discriminator_value_and_grad(self.real_logits, self.fake_logits)
        self.metrics: Metrics = {"d_loss": value}
        self.tensors = [real_root, self.fake_root]
        if config.lecam:
            gradients = self._with_lecam(gradients, players, config)
        self.cotangents = [cotangent_of(g, players, config) for g in gradients]
        for name, gamma, logits, images in (
            ("r1", r1_gamma, real_root, real),
            ("r2", r2_gamma, self.fake_root, fake),
        ):
            if gamma:
                penalty = _gradient_penalty(logits, images)
                # At one step in r1_every, and so r1_every times as heavy.
                weight = torch.full_like(penalty, gamma * config.r1_every)
                self.tensors.append(penalty)
                self.cotangents.append(cotangent_of(weight, players, config))
                self.metrics[name] = penalty.detach()

    def _with_lecam(
        self, gradients: tuple[Tensor, Tensor], players: Players, config: StepConfig
    ) -> tuple[Tensor, Tensor]:
        """The loss's gradients at the logits with those of the LeCam penalty."""
        if players.lecam is None:
            raise ValueError("lecam needs Players(..., lecam=LeCamPenalty()), got None")
        penalty, extra = gk.value_and_grad(players.lecam)(self.real_logits, self.fake_logits)
        self.metrics["lecam"] = penalty
        g_real, g_fake = (
            g if e is None else g + config.lecam * e for g, e in zip(gradients, extra, strict=True)
        )
        return g_real, g_fake


def _gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Half the squared gradient of the logit, or of the expected realness where D has K > 1."""
    outcomes = None
    if logits.dim() > 1 and logits.shape[1] > 1:
        outcomes = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)
    return gk.r1_penalty(logits, images, outcomes)


def _both(
    network: nn.Module, real: Tensor, fake: Tensor, fake_first: bool
) -> tuple[Tensor, Tensor]:
    if fake_first:
        of_fake = network(fake)
        return network(real), of_fake
    return network(real), network(fake)


def batch_format(real: Tensor, config: StepConfig) -> Tensor:
    """The batch in the memory format of the step."""
    if config.channels_last and real.dim() == 4:
        return real.contiguous(memory_format=torch.channels_last)
    return real


def full_precision(logits: Tensor) -> Tensor:
    """Logits in the precision of the loss: a half-precision cotangent would lose its small entries."""
    return logits if logits.dtype == torch.float64 else logits.float()


def autocast(like: Tensor, config: StepConfig) -> torch.autocast:
    """The mixed precision of the step on the device of ``like``, or none."""
    dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
    return torch.autocast(like.device.type, dtype, enabled=config.amp is not None)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Weights take no gradient inside: no weight-gradient kernels, no saved inputs for them."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def no_sync(last: bool, *networks: nn.Module) -> Iterator[None]:
    """Between processes, gradients are averaged once per update: at the last micro-batch."""
    with ExitStack() as stack:
        for network in networks:
            if not last and isinstance(network, DistributedDataParallel):
                stack.enter_context(network.no_sync())
        yield


def micro_batches(
    real: Tensor, latents: Tensor, config: StepConfig
) -> list[tuple[bool, Tensor, Tensor]]:
    k = config.accumulate
    if k == 1:
        return [(True, real, latents)]
    if len(real) % k:
        raise ValueError(f"accumulate={k} must divide the batch, which has {len(real)} samples")
    pairs = zip(real.chunk(k), latents.chunk(k), strict=True)
    return [(i == k - 1, r, z) for i, (r, z) in enumerate(pairs)]


def cotangent_of(gradient: Tensor, players: Players, config: StepConfig) -> Tensor:
    """A gradient at the logits, divided among micro-batches and multiplied by the loss scale."""
    if config.accumulate > 1:
        gradient = gradient / config.accumulate
    return gradient if players.scaler is None else players.scaler.scale(gradient)
