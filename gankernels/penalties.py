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

from collections.abc import Callable

import torch
from torch import Tensor

from gankernels import _checks as check

__all__ = ["gradient_penalty", "r1_penalty"]


def r1_penalty(
    real_logits: Tensor,
    real_images: Tensor,
    outcomes: Tensor | None = None,
    dim: int = 1,
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

    Returns:
        0-dim, float32 or float64, differentiable with respect to D's weights (and the images).

    Raises:
        ValueError: ``real_images`` does not require grad, or the shape of ``outcomes`` is wrong.
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
    gradient = _image_gradient(
        "real_logits", real_logits, "real_images", real_images, outcomes, dim
    )
    return 0.5 * gradient.flatten(1).square().sum(1).mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real_images: Tensor,
    fake_images: Tensor,
    generator: torch.Generator | None = None,
    center: float = 1.0,
    outcomes: Tensor | None = None,
    dim: int = 1,
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

    Returns:
        0-dim, float32 or float64, differentiable with respect to D's weights. Where the gradient is
        exactly 0 its norm has the derivative 0.

    Raises:
        TypeError: images that are not float tensors, or of two dtypes.
        ValueError: shapes differ, or the shape of ``outcomes`` is wrong.
        RuntimeError: two devices, or logits that do not depend on the images.

    Cost: a forward of D, one backward that is itself recorded, and D's double backward later.

    Example:
        >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> real, fake = torch.ones(8, 2), torch.zeros(8, 2)
        >>> gradient_penalty(lambda x: x @ weight, real, fake).item()  # (5 - 1)^2
        16.0
    """
    check.check_floating("real_images", real_images)
    check.check_floating("fake_images", fake_images)
    check.check_dim("real_images", real_images, 0)
    check.check_same_dtype("real_images", real_images, "fake_images", fake_images)
    check.check_same_device("real_images", real_images, "fake_images", fake_images)
    check.check_same_shape("real_images", real_images, "fake_images", fake_images)
    real, fake = real_images.detach(), fake_images.detach()
    one_per_image = [real.shape[0]] + [1] * (real.ndim - 1)
    u = torch.rand(one_per_image, generator=generator, dtype=real.dtype, device=real.device)
    images = (fake + u * (real - fake)).requires_grad_()
    # A caller under no_grad still gets the value.
    with torch.enable_grad():
        logits = discriminator(images)
        gradient = _image_gradient("discriminator(images)", logits, "images", images, outcomes, dim)
        norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        penalty: Tensor = (norm - center).square().mean()
        return penalty


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
