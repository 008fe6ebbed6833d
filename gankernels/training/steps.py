"""Training steps as functions of players, loss, real batch and noise.

- :func:`alternating_step`: the classic pair of updates with nothing computed that no update uses.
- :func:`reversal_step`: one forward and one backward for both networks (minimax losses).
- :func:`one_pass_step`: exact simultaneous gradients of any loss from one forward of each network.
- :func:`ratio_step`: the same for the non-saturating loss at the cost of a reversal step, where D
  treats samples independently.

No step builds a graph of its loss: the loss gives its value and its gradient at the logits, and
those gradients seed the backward pass of the networks. Nothing is brought to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gankernels as gk
from gankernels.training.config import StepConfig
from gankernels.training.distributed import bare
from gankernels.training.networks import has_batchnorm
from gankernels.training.players import Players, StepLoss

__all__ = [
    "STEPS",
    "Metrics",
    "Noise",
    "alternating_step",
    "check_ratio",
    "discriminator_phase",
    "generator_phase",
    "one_pass_step",
    "ratio_step",
    "reversal_step",
]

Metrics = dict[str, Tensor]
Noise = Callable[[int], Tensor]


# ---------------------------------------------------------------------------------------- steps


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
        ``d_grad_norm``, ``g_grad_norm`` (before clipping), ``r1`` where it was applied.
    """
    config = config or StepConfig()
    real = _batch(real, config)
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
    parts = _micro_batches(real, noise(len(real)), config)
    for last, real_part, latents in parts:
        with torch.no_grad(), _autocast(real, config):
            fake = bare(players.generator)(latents)
        with _no_sync(last, players.discriminator):
            roots = _DiscriminatorRoots(players, loss, real_part, fake, config, iteration)
            torch.autograd.backward(roots.tensors, roots.seeds)
        _add(total, roots.metrics, config)
    return total | _update(players, config, players.discriminator)


def generator_phase(
    players: Players, loss: StepLoss, real: Tensor, noise: Noise, config: StepConfig
) -> Metrics:
    """``config.g_updates`` updates of G; D passes gradients through and keeps none."""
    metrics: Metrics = {}
    real_logits: dict[int, Tensor] = {}
    with _frozen(bare(players.discriminator)):
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

    parts = _micro_batches(real, noise(len(real)), config)
    for part, (last, real_part, latents) in enumerate(parts):
        with _no_sync(last, players.generator), _autocast(real, config):
            fake = players.generator(latents)
            of_real = None if config.fake_first else real_pass(part, real_part)
            fake_logits = _full(discriminator(fake))
            of_real = real_pass(part, real_part) if config.fake_first else of_real
        value, (_, seed) = loss.generator_value_and_grad(
            None if of_real is None else _full(of_real), fake_logits
        )
        with _no_sync(last, players.generator):
            fake_logits.backward(_seed(seed, players, config))
        _add(total, {"g_loss": value}, config)
    return total | _update(players, config, players.generator)


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
    """
    config = config or StepConfig()
    real = _batch(real, config)
    _zero_grad(players)
    total: Metrics = {}
    for last, real_part, latents in _micro_batches(real, noise(len(real)), config):
        with _no_sync(last, players.generator, players.discriminator):
            with _autocast(real, config):
                fake = gk.gradient_reversal(players.generator(latents), config.alpha)
            roots = _DiscriminatorRoots(players, loss, real_part, fake, config, iteration)
            torch.autograd.backward(roots.tensors, roots.seeds)
        value, _ = loss.generator_value_and_grad(roots.real_logits, roots.fake_logits)
        _add(total, roots.metrics | {"g_loss": value}, config)
    return total | _update(players, config, players.discriminator, players.generator)


def one_pass_step(
    players: Players,
    loss: StepLoss,
    real: Tensor,
    noise: Noise,
    config: StepConfig | None = None,
    iteration: int = 0,
) -> Metrics:
    """Simultaneous update of both networks from one forward pass of each: exact, any loss, any D.

    Two vector-Jacobian products go through one graph of D(fake): the G seed down to the samples,
    and the D seed to D's weights. The gradients are those of two separate backward passes at the
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
    real = _batch(real, config)
    _zero_grad(players)
    total: Metrics = {}
    weights = [p for p in players.discriminator.parameters() if p.requires_grad]
    for last, real_part, latents in _micro_batches(real, noise(len(real)), config):
        with _no_sync(last, players.generator, players.discriminator):
            with _autocast(real, config):
                fake = players.generator(latents)
            samples = fake.detach().requires_grad_()
            roots = _DiscriminatorRoots(players, loss, real_part, samples, config, iteration)
            value, (_, seed) = loss.generator_value_and_grad(roots.real_logits, roots.fake_root)
            (at_samples,) = torch.autograd.grad(
                roots.fake_root, samples, _seed(seed, players, config), retain_graph=True
            )
            torch.autograd.backward(roots.tensors, roots.seeds, inputs=weights)
            fake.backward(at_samples)
        _add(total, roots.metrics | {"g_loss": value}, config)
    return total | _update(players, config, players.discriminator, players.generator)


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
    sample's gradient is linear in its seed: multiplying the gradient that arrives at sample i by
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
        ValueError: D has a BatchNorm layer, or the loss is not the non-saturating logistic one.
    """
    config = config or StepConfig()
    check_ratio(players.discriminator, loss)
    real = _batch(real, config)
    _zero_grad(players)
    total: Metrics = {}
    for last, real_part, latents in _micro_batches(real, noise(len(real)), config):
        with _no_sync(last, players.generator, players.discriminator):
            with _autocast(real, config):
                fake = players.generator(latents)
            samples = fake.detach().requires_grad_()
            roots = _DiscriminatorRoots(players, loss, real_part, samples, config, iteration)
            torch.autograd.backward(roots.tensors, roots.seeds)
            assert samples.grad is not None
            ratio = gk.nonsaturating_ratio(roots.fake_logits)
            ratio = ratio.view(-1, *[1] * (samples.dim() - 1))
            fake.backward((samples.grad * ratio).to(fake.dtype))
        value, _ = loss.generator_value_and_grad(roots.real_logits, roots.fake_logits)
        _add(total, roots.metrics | {"g_loss": value}, config)
    return total | _update(players, config, players.discriminator, players.generator)


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


# --------------------------------------------------------------------------------------- pieces


class _DiscriminatorRoots:
    """D's forward on both batches, and the tensors and seeds that its backward starts from."""

    def __init__(
        self,
        players: Players,
        loss: StepLoss,
        real: Tensor,
        fake: Tensor,
        config: StepConfig,
        iteration: int,
    ) -> None:
        penalise = config.r1_gamma > 0 and iteration % config.r1_every == 0
        if penalise:
            real = real.detach().requires_grad_()
        with _autocast(real, config):
            real_root, fake_root = _both(players.discriminator, real, fake, config.fake_first)
        real_root, self.fake_root = _full(real_root), _full(fake_root)
        self.real_logits, self.fake_logits = real_root.detach(), self.fake_root.detach()
        value, seeds = loss.discriminator_value_and_grad(self.real_logits, self.fake_logits)
        self.metrics: Metrics = {"d_loss": value}
        self.tensors = [real_root, self.fake_root]
        self.seeds = [_seed(s, players, config) for s in seeds]
        if penalise:
            penalty = _r1(real_root, real)
            # At one step in r1_every, and so r1_every times as heavy.
            weight = torch.full_like(penalty, config.r1_gamma * config.r1_every)
            self.tensors.append(penalty)
            self.seeds.append(_seed(weight, players, config))
            self.metrics["r1"] = penalty.detach()


def _r1(real_logits: Tensor, real: Tensor) -> Tensor:
    """Half the squared gradient of the logit, or of the expected realness where D has K > 1."""
    outcomes = None
    if real_logits.dim() > 1 and real_logits.shape[1] > 1:
        outcomes = torch.linspace(-1, 1, real_logits.shape[1], device=real_logits.device)
    return gk.r1_penalty(real_logits, real, outcomes)


def _both(
    network: nn.Module, real: Tensor, fake: Tensor, fake_first: bool
) -> tuple[Tensor, Tensor]:
    if fake_first:
        of_fake = network(fake)
        return network(real), of_fake
    return network(real), network(fake)


def _batch(real: Tensor, config: StepConfig) -> Tensor:
    if config.channels_last and real.dim() == 4:
        return real.contiguous(memory_format=torch.channels_last)
    return real


def _full(logits: Tensor) -> Tensor:
    """Logits in the precision of the loss: a half-precision seed would lose its small entries."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _autocast(like: Tensor, config: StepConfig) -> torch.autocast:
    dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
    return torch.autocast(like.device.type, dtype, enabled=config.amp is not None)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
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
def _no_sync(last: bool, *networks: nn.Module) -> Iterator[None]:
    """Between processes, gradients are averaged once per update: at the last micro-batch."""
    with ExitStack() as stack:
        for network in networks:
            if not last and isinstance(network, DistributedDataParallel):
                stack.enter_context(network.no_sync())
        yield


def _micro_batches(
    real: Tensor, latents: Tensor, config: StepConfig
) -> list[tuple[bool, Tensor, Tensor]]:
    k = config.accumulate
    if k == 1:
        return [(True, real, latents)]
    if len(real) % k:
        raise ValueError(f"accumulate={k} must divide the batch, which has {len(real)} samples")
    pairs = zip(real.chunk(k), latents.chunk(k), strict=True)
    return [(i == k - 1, r, z) for i, (r, z) in enumerate(pairs)]


def _seed(gradient: Tensor, players: Players, config: StepConfig) -> Tensor:
    """A gradient at the logits, divided among micro-batches and multiplied by the loss scale."""
    if config.accumulate > 1:
        gradient = gradient / config.accumulate
    return gradient if players.scaler is None else players.scaler.scale(gradient)


def _add(total: Metrics, part: Metrics, config: StepConfig) -> None:
    for name, value in part.items():
        value = value if config.accumulate == 1 else value / config.accumulate
        total[name] = total[name] + value if name in total else value


def _zero_grad(players: Players) -> None:
    for optimizer in {id(o): o for o in (players.d_optimizer, players.g_optimizer)}.values():
        optimizer.zero_grad()


def _update(players: Players, config: StepConfig, *networks: nn.Module) -> Metrics:
    """Unscale, measure, clip and step the optimizers of ``networks``."""
    of = {
        id(players.discriminator): players.d_optimizer,
        id(players.generator): players.g_optimizer,
    }
    optimizers = {id(o): o for o in (of[id(n)] for n in networks)}.values()
    if players.scaler is not None:
        for optimizer in optimizers:
            players.scaler.unscale_(optimizer)
    metrics: Metrics = {}
    for network in networks:
        norm = _clip(network, config)
        if norm is not None:
            prefix = "d" if network is players.discriminator else "g"
            metrics[f"{prefix}_grad_norm"] = norm
    for optimizer in optimizers:
        if players.scaler is None:
            optimizer.step()
        else:
            players.scaler.step(optimizer)
    if players.scaler is not None:
        players.scaler.update()
    return metrics


def _clip(network: nn.Module, config: StepConfig) -> Tensor | None:
    if config.clip is not None:
        return nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    if not config.grad_norms:
        return None
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
