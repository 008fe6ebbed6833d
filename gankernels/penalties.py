"""Gradient penalties on the discriminator, in plain differentiable PyTorch.

They differentiate a gradient, so everything between the images and the logits must have a second
derivative: all operators of this package do. Inside ``torch.func`` transforms use
``torch.func.grad``.

What is differentiated: for one logit per image (or per patch) the logit itself. A discriminator
that gives a *distribution* has no single output to penalise, and the sum of its ``K`` logits says
nothing about it (softmax ignores a shift of all logits): pass ``outcomes``, the realness value of
each outcome, and the expected realness :math:`\\sum_k \\mathrm{softmax}(z)_k \\, v_k` is penalised
instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gankernels import _checks as check

__all__ = ["approximate_r1_penalty", "gradient_penalty", "r1_penalty", "r2_penalty"]


def r1_penalty(
    real_logits: Tensor,
    real_images: Tensor,
    outcomes: Tensor | None = None,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    r"""R1: half the mean squared norm of the gradient of D at real images.

    .. math:: \frac12 \, \mathbb{E}_{x \sim real} \|\nabla_x D(x)\|^2

    Multiply by :math:`\gamma`, as Mescheder et al. 2018 ("Which Training Methods for GANs do
    actually Converge?", the R1 regulariser) have :math:`\gamma / 2` before the expectation.

    The outputs of one image are summed before differentiating, which for one logit per image is
    exact and for a patch discriminator is the usual convention (the gradient of the summed patch
    logits). D must treat images independently: under BatchNorm the gradients of different images
    mix.

    Args:
        real_logits: ``D(real_images)``, first dimension the batch, computed with
            ``real_images.requires_grad`` true.
        real_images: ``(N, ...)``.
        outcomes: ``(K,)`` realness of each outcome, if the logits are a distribution along ``dim``.
        dim: The class dimension; only used with ``outcomes``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the images.

    Returns:
        0-dim, or ``(N,)`` for ``"none"``; float32 or float64, differentiable with respect to D's
        weights (and the images).

    Raises:
        ValueError: ``real_images`` does not require grad, the shape of ``outcomes`` is wrong, or an
            unknown reduction.
        RuntimeError: ``real_logits`` do not depend on ``real_images``.

    Cost: one backward through D that is itself recorded, and D's double backward later.

    Example:
        >>> images = torch.ones(2, 3, requires_grad=True)
        >>> weight = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
        >>> penalty = r1_penalty(images @ weight, images)  # |weight|^2 / 2
        >>> penalty.backward()
        >>> penalty.item(), weight.grad
        (4.5, tensor([1., 2., 2.]))
    """
    check.check_reduction(reduction)
    gradient = _image_gradient(
        "real_logits", real_logits, "real_images", real_images, outcomes, dim
    )
    return _reduced(0.5 * _squared_norms(gradient), reduction)


def r2_penalty(
    fake_logits: Tensor,
    fake_images: Tensor,
    outcomes: Tensor | None = None,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    r"""R2: half the mean squared norm of the gradient of D at generated images.

    .. math:: \frac12 \, \mathbb{E}_{x \sim fake} \|\nabla_x D(x)\|^2

    (Mescheder et al. 2018, the R2 regulariser; Huang et al. 2024, "The GAN is dead; long live the
    GAN!", add it to R1 with the same :math:`\gamma`.) It regularises D: give it images that are
    detached from G, or G is trained by it too.

    Everything else, the sums over the outputs of an image, ``outcomes``, the errors and the cost, is as
    for :func:`r1_penalty`.

    Args:
        fake_logits: ``D(fake_images)``, first dimension the batch, computed with
            ``fake_images.requires_grad`` true.
        fake_images: ``(N, ...)``.
        outcomes: ``(K,)`` realness of each outcome, if the logits are a distribution along ``dim``.
        dim: The class dimension; only used with ``outcomes``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the images.

    Returns:
        0-dim, or ``(N,)`` for ``"none"``; float32 or float64, differentiable with respect to D's
        weights (and the images).

    Raises:
        ValueError: ``fake_images`` does not require grad, the shape of ``outcomes`` is wrong, or an
            unknown reduction.
        RuntimeError: ``fake_logits`` do not depend on ``fake_images``.

    Example:
        >>> weight = torch.tensor([1.0, 2.0, 2.0], requires_grad=True)
        >>> images = torch.zeros(2, 3).requires_grad_()  # G(z).detach().requires_grad_()
        >>> r2_penalty(images @ weight, images, reduction="none").tolist()
        [4.5, 4.5]
    """
    check.check_reduction(reduction)
    gradient = _image_gradient(
        "fake_logits", fake_logits, "fake_images", fake_images, outcomes, dim
    )
    return _reduced(0.5 * _squared_norms(gradient), reduction)


def approximate_r1_penalty(
    discriminator: Callable[[Tensor], Tensor],
    images: Tensor,
    sigma: float,
    logits: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""R1 without a second derivative: how far D's output moves when its input is disturbed.

    .. math::
        \mathbb{E}_x \|D(x) - D(x + \sigma \varepsilon)\|^2, \qquad \varepsilon \sim N(0, I)

    For a D that cannot be differentiated twice (fused attention, sharded weights, a compiled
    backward). To first order in :math:`\sigma` its expectation is :math:`\sigma^2 \|\nabla_x
    D(x)\|^2`, so :math:`1 / (2 \sigma^2)` times it stands for :func:`r1_penalty`, and on generated
    images for :func:`r2_penalty`. (Lin et al. 2025, "Diffusion Adversarial Post-Training for One-Step
    Video Generation", the approximated R1 loss.)

    Args:
        discriminator: Maps images to logits, batch first.
        images: ``(N, ...)``; detached.
        sigma: Standard deviation of the noise, positive; in the units of the images.
        logits: ``discriminator(images)`` where it is at hand, which saves its forward pass.
        generator: Draws the noise, on the images' device; the global one if ``None``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the images.

    Returns:
        0-dim, or ``(N,)`` for ``"none"``; float32 or float64, differentiable with respect to D's
        weights through both terms. The squares of an image's outputs (patches) are summed.

    Raises:
        TypeError: ``images`` or the logits are no float tensors.
        ValueError: ``sigma`` is not positive and finite, an unknown reduction, or two shapes of logits.

    Cost: two forwards of D (one if ``logits`` are given) and a backward through each.

    Example:
        >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> noise = torch.Generator().manual_seed(0)
        >>> penalty = approximate_r1_penalty(lambda x: x @ weight, torch.ones(9999, 2), 0.1, generator=noise)
        >>> round((penalty / (2 * 0.1**2)).item(), 1)  # |weight|^2 / 2 = 12.5, but for the noise
        12.7
    """
    check.check_reduction(reduction)
    check.check_floating("images", images)
    check.check_dim("images", images, 0)
    if not (check.check_factor("sigma", sigma) > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be positive and finite, got {sigma!r}")
    x = images.detach()
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    clean = discriminator(x) if logits is None else logits
    noisy = discriminator(x + sigma * noise)
    check.check_floating("logits", clean)
    check.check_same_shape("logits", clean, "discriminator(images + noise)", noisy)
    dtype = torch.promote_types(clean.dtype, torch.float32)
    return _reduced(_squared_norms(clean.to(dtype) - noisy.to(dtype)), reduction)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real_images: Tensor,
    fake_images: Tensor,
    generator: torch.Generator | None = None,
    center: float = 1.0,
    outcomes: Tensor | None = None,
    dim: int = 1,
    reduction: str = "mean",
) -> Tensor:
    r"""WGAN-GP: how far the norm of D's gradient between real and fake images is from ``center``.

    .. math::
        \mathbb{E}_{\hat x} \left(\|\nabla_{\hat x} D(\hat x)\| - center\right)^2, \qquad
        \hat x = u \, x_{real} + (1 - u) \, x_{fake}, \quad u \sim U[0, 1] \text{ per image}

    Multiply by :math:`\lambda` (10 in Gulrajani et al. 2017, "Improved Training of Wasserstein
    GANs"). ``center=0`` gives the zero-centred variant. The outputs of one image are summed before
    differentiating; D must treat images independently (no BatchNorm).

    Args:
        discriminator: Maps images to logits, batch first.
        real_images: ``(N, ...)``; detached.
        fake_images: The same shape, dtype and device; detached.
        generator: Draws ``u``, on the images' device; the global one if ``None``.
        center: The norm aimed at.
        outcomes: ``(K,)`` realness of each outcome, if the logits are a distribution along ``dim``.
        dim: The class dimension; only used with ``outcomes``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the images.

    Returns:
        0-dim, or ``(N,)`` for ``"none"``; float32 or float64, differentiable with respect to D's
        weights. Where the gradient is exactly 0 its norm has the derivative 0.

    Raises:
        TypeError: images that are not float tensors, or of two dtypes; a ``center`` that is no number.
        ValueError: shapes differ, the shape of ``outcomes`` is wrong, or an unknown reduction.
        RuntimeError: two devices, or logits that do not depend on the images.

    Cost: a forward of D, one backward that is itself recorded, and D's double backward later.

    Example:
        >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> real, fake = torch.ones(8, 2), torch.zeros(8, 2)
        >>> gradient_penalty(lambda x: x @ weight, real, fake).item()  # (5 - 1)^2
        16.0
    """
    check.check_reduction(reduction)
    check.check_floating("real_images", real_images)
    check.check_floating("fake_images", fake_images)
    check.check_dim("real_images", real_images, 0)
    check.check_same_dtype("real_images", real_images, "fake_images", fake_images)
    check.check_same_device("real_images", real_images, "fake_images", fake_images)
    check.check_same_shape("real_images", real_images, "fake_images", fake_images)
    check.check_factor("center", center)
    real, fake = real_images.detach(), fake_images.detach()
    one_per_image = [real.shape[0]] + [1] * (real.ndim - 1)
    u = torch.rand(one_per_image, generator=generator, dtype=real.dtype, device=real.device)
    images = (fake + u * (real - fake)).requires_grad_()
    # A caller under no_grad still gets the value.
    with torch.enable_grad():
        logits = discriminator(images)
        gradient = _image_gradient("discriminator(images)", logits, "images", images, outcomes, dim)
        norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return _reduced((norm - center).square(), reduction)


def _squared_norms(x: Tensor) -> Tensor:
    """(N,): the squared norm of each sample."""
    return x.unsqueeze(-1).flatten(1).square().sum(1)


def _reduced(per_image: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return per_image
    return per_image.mean() if reduction == "mean" else per_image.sum()


def _image_gradient(
    logits_name: str,
    logits: Tensor,
    images_name: str,
    images: Tensor,
    outcomes: Tensor | None,
    dim: int,
) -> Tensor:
    """Gradient of the summed outputs to each image, recorded, in the accumulation dtype."""
    check.check_floating(logits_name, logits)
    check.check_floating(images_name, images)
    check.check_dim(images_name, images, 0)
    if not images.requires_grad:
        raise ValueError(
            f"{images_name} must require grad before D is run on it, got requires_grad=False"
        )
    output = logits if outcomes is None else _expected_realness(logits_name, logits, outcomes, dim)
    if not output.requires_grad:
        raise RuntimeError(
            f"{logits_name} must depend on {images_name}, got logits without a graph"
        )
    (gradient,) = torch.autograd.grad(output.sum(), images, create_graph=True)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32))


def _expected_realness(name: str, logits: Tensor, outcomes: Tensor, dim: int) -> Tensor:
    """sum_k softmax(z)_k v_k over the class dimension."""
    index = check.check_logits(name, logits, dim)
    check.check_floating("outcomes", outcomes)
    check.check_same_device("outcomes", outcomes, name, logits)
    if list(outcomes.shape) != [logits.shape[index]]:
        raise ValueError(
            f"outcomes must have shape [{logits.shape[index]}] to match {name}, "
            f"got {list(outcomes.shape)}"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    probabilities = logits.to(dtype).softmax(index)
    return probabilities.movedim(index, -1) @ outcomes.to(dtype)
