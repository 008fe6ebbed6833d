"""Training steps as functions of players, loss, real batch and noise.

- :func:`alternating_step`: the classic pair of updates with nothing computed that no update uses.
- :func:`reversal_step`: one forward and one backward for both networks (minimax losses).
- :func:`one_pass_step`: exact simultaneous gradients of any loss from one forward of each network.
- :func:`ratio_step`: the same for the non-saturating loss at the cost of a reversal step, where D
  treats samples independently.

No step builds a graph of its loss: the loss gives its value and its gradient at the logits, and
those gradients begin the backward pass of the networks. Nothing is brought to the host.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import gankernels as gk
from gankernels.training.distributed import bare
from gankernels.training.losses import StepLoss
from gankernels.training.networks import has_batchnorm
from gankernels.training.passes import (
    DiscriminatorRoots,
    autocast,
    batch_format,
    cotangent_of,
    frozen,
    full_precision,
    micro_batches,
    no_sync,
)
from gankernels.training.players import Metrics, Noise, Players
from gankernels.training.step_config import StepConfig
from gankernels.training.updates import add_metrics, update, zero_grad

__all__ = [
    "STEPS",
    "alternating_step",
    "check_ratio",
    "discriminator_phase",
    "generator_phase",
    "one_pass_step",
    "ratio_step",
    "reversal_step",
]


def alternating_step(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig | None = None,
    iteration: int = 0,
) -> Metrics:
    """Update D, then G (or G, then D), each with fresh noise, without wasted work.

    The parameter updates are those of the plain loop that calls ``loss.backward()`` twice. Left
    out: the graph of G in the D phase, the backward pass through D(real) and D's weight gradients
    in the G phase, and the graph of the loss. With ``g_updates > 1``, D(real) is computed once for
    all of them.

    Args:
        players: Networks and optimizers; updated in place.
        loss: Gives values and gradients at the logits.
        real: ``(N, ...)`` real samples.
        noise: ``noise(n)`` draws the input of the generator for ``n`` samples.
        config: Options; the defaults of :class:`StepConfig` when None.
        iteration: Number of this step, which lazy regularisation counts by.

    Returns:
        0-dim tensors on the device: ``d_loss``, ``g_loss`` (before the update of their phase),
        ``d_grad_norm``, ``g_grad_norm`` (before clipping), ``r1``, ``r2`` and ``lecam`` where they were
        applied, without their weights.
    """
    config = config or StepConfig()
    real = batch_format(real, config)
    metrics: Metrics = {}
    for player in (0, 1) if config.order == "d_first" else (1, 0):
        if player == 0:
            metrics |= discriminator_phase(players, loss, real, noise, config, iteration)
        else:
            metrics |= generator_phase(players, loss, real, noise, config)
    return metrics


def discriminator_phase(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig,
    iteration: int = 0,
) -> Metrics:
    """One update of D; G only produces samples."""
    players.d_optimizer.zero_grad()
    total: Metrics = {}
    parts = micro_batches(real, noise(len(real)), config)
    for last, real_part, latents in parts:
        with torch.no_grad(), autocast(real, config):
            fake = bare(players.generator)(latents)
        with no_sync(last, players.discriminator):
            roots = DiscriminatorRoots(players, loss, real_part, fake, config, iteration)
            torch.autograd.backward(roots.tensors, roots.cotangents)
        add_metrics(total, roots.metrics, config)
    return total | update(players, config, players.discriminator)


def generator_phase(
    players: Players, loss: StepLoss, real: Tensor, noise: Noise, config: StepConfig
) -> Metrics:
    """``config.g_updates`` updates of G; D passes gradients through and keeps none."""
    metrics: Metrics = {}
    real_logits: dict[int, Tensor] = {}
    with frozen(bare(players.discriminator)):
        for _ in range(config.g_updates):
            metrics = _generator_update(players, loss, real, noise, config, real_logits)
    return metrics


def _generator_update(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig,
    real_logits: dict[int, Tensor],
) -> Metrics:
    players.g_optimizer.zero_grad()
    total: Metrics = {}
    discriminator = bare(players.discriminator)

    def real_pass(part: int, samples: Tensor) -> Tensor | None:
        # D does not change between the updates of one phase, so neither do its logits.
        if loss.generator_uses_real and part not in real_logits:
            with torch.no_grad():
                real_logits[part] = discriminator(samples)
        return real_logits.get(part)

    parts = micro_batches(real, noise(len(real)), config)
    for part, (last, real_part, latents) in enumerate(parts):
        with no_sync(last, players.generator), autocast(real, config):
            fake = players.generator(latents)
            of_real = None if config.fake_first else real_pass(part, real_part)
            fake_logits = full_precision(discriminator(fake))
            of_real = real_pass(part, real_part) if config.fake_first else of_real
        value, (_, gradient) = loss.generator_value_and_grad(
            None if of_real is None else full_precision(of_real), fake_logits
        )
        with no_sync(last, players.generator):
            torch.autograd.backward(fake_logits, cotangent_of(gradient, players, config))
        add_metrics(total, {"g_loss": value}, config)
    return total | update(players, config, players.generator)


def reversal_step(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig | None = None,
    iteration: int = 0,
) -> Metrics:
    """One forward and one backward for both networks, through a gradient reversal layer.

    G climbs the loss that D descends: with a logistic loss this is the minimax game, with the
    realness loss objective 1. Where D wins, its logistic loss saturates and G gets no gradient.

    Args:
        players: Networks and optimizers (one shared optimizer, as in the first article, or two).
        loss: Its discriminator part trains both; its generator part is only reported.
        real: ``(N, ...)`` real samples.
        noise: ``noise(n)`` draws the input of the generator.
        config: Options; ``alpha`` scales what reaches G.
        iteration: Number of this step, which lazy regularisation counts by.

    Returns:
        As :func:`alternating_step`.

    Raises:
        ValueError: The options have R2 or LeCam, penalties of D alone.
    """
    config = config or StepConfig()
    config.check_kind("reversal")
    real = batch_format(real, config)
    zero_grad(players)
    total: Metrics = {}
    for last, real_part, latents in micro_batches(real, noise(len(real)), config):
        with no_sync(last, players.generator, players.discriminator):
            with autocast(real, config):
                fake = gk.gradient_reversal(players.generator(latents), config.alpha)
            roots = DiscriminatorRoots(players, loss, real_part, fake, config, iteration)
            torch.autograd.backward(roots.tensors, roots.cotangents)
        value, _ = loss.generator_value_and_grad(roots.real_logits, roots.fake_logits)
        add_metrics(total, roots.metrics | {"g_loss": value}, config)
    return total | update(players, config, players.discriminator, players.generator)


def one_pass_step(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig | None = None,
    iteration: int = 0,
) -> Metrics:
    """Simultaneous update of both networks from one forward pass of each: exact, any loss, any D.

    Two vector-Jacobian products go through one graph of D(fake): the G cotangent down to the samples,
    and the D cotangent to D's weights. The gradients are those of two separate backward passes at the
    same parameters and the same noise.

    Args:
        players: Networks and optimizers; updated in place.
        loss: Gives values and gradients at the logits.
        real: ``(N, ...)`` real samples.
        noise: ``noise(n)`` draws the input of the generator.
        config: Options.
        iteration: Number of this step, which lazy regularisation counts by.

    Returns:
        As :func:`alternating_step`.
    """
    config = config or StepConfig()
    real = batch_format(real, config)
    zero_grad(players)
    total: Metrics = {}
    weights = [p for p in players.discriminator.parameters() if p.requires_grad]
    for last, real_part, latents in micro_batches(real, noise(len(real)), config):
        with no_sync(last, players.generator, players.discriminator):
            with autocast(real, config):
                fake = players.generator(latents)
            samples = fake.detach().requires_grad_()
            roots = DiscriminatorRoots(players, loss, real_part, samples, config, iteration)
            value, (_, gradient) = loss.generator_value_and_grad(roots.real_logits, roots.fake_root)
            (at_samples,) = torch.autograd.grad(
                roots.fake_root, samples, cotangent_of(gradient, players, config), retain_graph=True
            )
            torch.autograd.backward(roots.tensors, roots.cotangents, inputs=weights)
            fake.backward(at_samples)
        add_metrics(total, roots.metrics | {"g_loss": value}, config)
    return total | update(players, config, players.discriminator, players.generator)


def ratio_step(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig | None = None,
    iteration: int = 0,
) -> Metrics:
    """One forward and one backward for both networks, with the non-saturating loss for G.

    ``dL_G/df = -sigmoid(-f)`` and ``dL_D/df = sigmoid(f)`` differ by a factor per sample, and a
    sample's gradient is linear in its cotangent: multiplying the gradient that arrives at sample i by
    that ratio turns D's gradient into G's (one-stage GAN training, Shen et al., CVPR 2021). This
    holds where D treats samples independently.

    Args:
        players: Networks and optimizers; D without BatchNorm, one logit per sample.
        loss: A :class:`gankernels.LogisticLoss`.
        real: ``(N, ...)`` real samples.
        noise: ``noise(n)`` draws the input of the generator.
        config: Options.
        iteration: Number of this step, which lazy regularisation counts by.

    Returns:
        As :func:`alternating_step`.

    Raises:
        ValueError: D has a BatchNorm layer, the loss is not the non-saturating logistic one, or the
            options have R2 or LeCam, penalties of D alone.
    """
    config = config or StepConfig()
    config.check_kind("ratio")
    check_ratio(players.discriminator, loss)
    real = batch_format(real, config)
    zero_grad(players)
    total: Metrics = {}
    for last, real_part, latents in micro_batches(real, noise(len(real)), config):
        with no_sync(last, players.generator, players.discriminator):
            with autocast(real, config):
                fake = players.generator(latents)
            samples = fake.detach().requires_grad_()
            roots = DiscriminatorRoots(players, loss, real_part, samples, config, iteration)
            torch.autograd.backward(roots.tensors, roots.cotangents)
            assert samples.grad is not None
            ratio = gk.nonsaturating_ratio(roots.fake_logits)
            ratio = ratio.view(-1, *[1] * (samples.dim() - 1))
            fake.backward((samples.grad * ratio).to(fake.dtype))
        value, _ = loss.generator_value_and_grad(roots.real_logits, roots.fake_logits)
        add_metrics(total, roots.metrics | {"g_loss": value}, config)
    return total | update(players, config, players.discriminator, players.generator)


def check_ratio(discriminator: nn.Module, loss: StepLoss | nn.Module) -> None:
    """Raise ValueError where :func:`ratio_step` would not be exact."""
    if has_batchnorm(discriminator):
        raise ValueError(
            "ratio_step needs a discriminator that treats samples independently, but it has a "
            "BatchNorm layer, which mixes them; use one_pass_step, or another normalisation "
            "(spectral, group and layer norm are exact)"
        )
    if not isinstance(loss, gk.LogisticLoss) or loss.saturating:
        raise ValueError(
            "ratio_step is derived for the non-saturating logistic loss, got "
            f"{type(loss).__name__}; one_pass_step serves every loss"
        )


STEPS: dict[str, Callable[..., Metrics]] = {
    "alternating": alternating_step,
    "reversal": reversal_step,
    "one_pass": one_pass_step,
    "ratio": ratio_step,
}
