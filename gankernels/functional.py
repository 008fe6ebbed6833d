"""The operators as functions: each is its documentation and one call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from gankernels import _backend, _checks, reference
from gankernels.feature_matching import feature_matching_loss
from gankernels.scalar_losses import (
    hinge_d_fake_loss,
    hinge_d_loss,
    hinge_d_real_loss,
    hinge_g_loss,
    logistic_d_fake_loss,
    logistic_d_loss,
    logistic_d_real_loss,
    lsgan_d_fake_loss,
    lsgan_d_loss,
    lsgan_d_real_loss,
    lsgan_g_loss,
    nonsaturating_g_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    relativistic_pairing_d_loss,
    relativistic_pairing_g_loss,
    saturating_g_loss,
    wasserstein_d_fake_loss,
    wasserstein_d_loss,
    wasserstein_d_real_loss,
    wasserstein_g_loss,
)

__all__ = [
    "feature_matching_loss",
    "gradient_reversal",
    "gradient_scale",
    "hinge_d_fake_loss",
    "hinge_d_loss",
    "hinge_d_real_loss",
    "hinge_g_loss",
    "logistic_d_fake_loss",
    "logistic_d_loss",
    "logistic_d_real_loss",
    "lsgan_d_fake_loss",
    "lsgan_d_loss",
    "lsgan_d_real_loss",
    "lsgan_g_loss",
    "negate_",
    "nonsaturating_g_loss",
    "nonsaturating_ratio",
    "realness_d_loss",
    "realness_g_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
    "relativistic_pairing_d_loss",
    "relativistic_pairing_g_loss",
    "resample_logits",
    "resampled_realness_d_loss",
    "resampled_realness_g_loss",
    "saturating_g_loss",
    "softmax_kl",
    "softmax_kl_logits",
    "wasserstein_d_fake_loss",
    "wasserstein_d_loss",
    "wasserstein_d_real_loss",
    "wasserstein_g_loss",
]


def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    validate: bool = False,
) -> Tensor:
    r"""Kullback-Leibler divergence of a target distribution from the softmax of logits.

    .. math::
        \mathrm{KL}(A \| \mathrm{softmax}(z)) = \sum_k A_k \log A_k - \sum_k A_k z_k + S \, \mathrm{lse}(z),
        \quad S = \sum_k A_k, \quad 0 \log 0 = 0

    Gradients: :math:`S \, \mathrm{softmax}(z) - A` to the logits; to the target, where it requires grad,
    :math:`\log A + 1 - \log \mathrm{softmax}(z)`, and 0 at empty bins.
    Computed in log space: the gradient does not vanish however far the logits are off. An empty bin
    contributes nothing, whatever its logit, even ``-inf``; a target that does not sum to one is allowed.

    Args:
        logits: Raw logits, float16, bfloat16, float32 or float64; one distribution per row along ``dim``.
        target: ``(K,)`` for all rows (never materialised per row), or the shape of ``logits``. Any float
            dtype: it is read in the accumulation dtype.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``. Dense layouts, ``(N, K, H, W)`` and channels-last among them, are read
            as they lie.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"`` (one loss per row).
        validate: Check that the target is finite, non-negative and not all zero (a host synchronisation on
            a GPU, so off by default).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits. Differentiable any number of times. An empty
        batch gives NaN for ``"mean"``, 0 for ``"sum"``.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: a shape, dimension or reduction that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and gradient; logits read once, gradient written once, one exponential per
    element. Bitwise repeatable for any number of CPU threads.

    Source: the divergences of Xiangli et al. 2020, "Real or Not Real, that is the Question", equation 3.

    Example:
        >>> import torch, gankernels as gk
        >>> logits = torch.zeros(3, 4, requires_grad=True)
        >>> loss = gk.softmax_kl(logits, torch.tensor([0.0, 0.5, 0.5, 0.0]))  # log 4 - log 2
        >>> loss
        tensor(0.6931, grad_fn=<...>)
        >>> loss.backward()
        >>> logits.grad[0] * 3  # softmax - target
        tensor([ 0.2500, -0.2500, -0.2500,  0.2500])
        >>> sequences = torch.zeros(2, 7, 4)  # (B, S, V): one distribution per position
        >>> gk.softmax_kl(sequences, torch.full((4,), 0.25), dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if validate:
        _checks.check_anchor_values("target", target)
    if _backend.reference_serves(logits, target):
        return reference.softmax_kl(logits, target, dim, reduction)
    return _backend.softmax_kl(logits, target, dim, _backend.reduction_code(reduction))


def softmax_kl_logits(
    p_logits: Tensor, q_logits: Tensor, dim: int = 1, reduction: str = "mean"
) -> Tensor:
    r"""Kullback-Leibler divergence between the softmaxes of two tensors of logits.

    .. math::
        \mathrm{KL}(p \| q) = \sum_k p_k (\log p_k - \log q_k),
        \quad p = \mathrm{softmax}(p\_logits), \; q = \mathrm{softmax}(q\_logits)

    Gradients: :math:`q - p` to ``q_logits``; :math:`p \circ (\log p - \log q - \mathrm{KL})` to ``p_logits``.

    Args:
        p_logits: Raw logits of the first distribution, float16, bfloat16, float32 or float64.
        q_logits: Raw logits of the second, same shape, dtype and device; rows are compared pairwise.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"``.

    Shape:
        both ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times. Of nearly
        equal distributions rounding may leave a row below 0, by less than ``8 eps (1 + r + log K)`` with the
        eps of the loss's dtype and ``r`` the range of the row's logits.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: shapes that differ, a dimension or reduction that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and both gradients; gradients that are not required are not computed.

    Source: the first term of Xiangli et al. 2020, equation 19.

    Example:
        >>> import torch, gankernels as gk
        >>> p, q = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]]))
        >>> gk.softmax_kl_logits(p, q)  # log(4/3) / 2
        tensor(0.1438)
        >>> sequences = torch.zeros(2, 7, 4)  # (B, S, V): one distribution per position
        >>> gk.softmax_kl_logits(sequences, sequences, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if _backend.reference_serves(p_logits, q_logits):
        return reference.softmax_kl_logits(p_logits, q_logits, dim, reduction)
    return _backend.softmax_kl_logits(p_logits, q_logits, dim, _backend.reduction_code(reduction))


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    validate: bool = False,
) -> Tensor:
    r"""RealnessGAN's discriminator loss: both divergences from their anchors, in one call.

    .. math::
        L_D = \mathrm{KL}(A_1 \| \mathrm{softmax}(r)) + \mathrm{KL}(A_0 \| \mathrm{softmax}(f))

    Gradients: :math:`S_1 \mathrm{softmax}(r) - A_1` to the real logits,
    :math:`S_0 \mathrm{softmax}(f) - A_0` to the fake ones, each divided by its own number of rows for
    ``"mean"``; to the anchors, where they require grad, as in :func:`softmax_kl`. With the anchors
    ``A1 = [0, 1]`` and ``A0 = [1, 0]`` this is the logistic GAN loss of the logit difference.

    Args:
        real_logits: D's raw output for real images, float16, bfloat16, float32 or float64.
        fake_logits: D's raw output for generated images; same number of dimensions and classes, same dtype
            and device. The batches may differ in size.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``real_logits``; any float dtype.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` (over the rows of each batch), ``"sum"``, or ``"none"`` (the sum of both terms
            row by row: equal shapes needed).
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: shapes, dimension, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for the value and both gradients; each logit read once, each gradient written once.

    Source: Xiangli et al. 2020, equation 3.

    Example:
        >>> import torch, gankernels as gk
        >>> real_anchor, fake_anchor = gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)
        >>> logits = torch.zeros(8, 20)
        >>> gk.realness_d_loss(logits, logits, real_anchor, fake_anchor).shape
        torch.Size([])
        >>> logits, anchor = torch.zeros(2, 7, 4), torch.full((4,), 0.25)  # one distribution per position
        >>> gk.realness_d_loss(logits, logits, anchor, anchor, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if validate:
        _validate_anchors(real_anchor, fake_anchor)
    if _backend.reference_serves(real_logits, fake_logits, real_anchor, fake_anchor):
        return reference.realness_d_loss(
            real_logits, fake_logits, real_anchor, fake_anchor, dim, reduction
        )
    return _backend.realness_d_loss(
        real_logits, fake_logits, real_anchor, fake_anchor, dim, _backend.reduction_code(reduction)
    )


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    *,
    validate: bool = False,
) -> Tensor:
    r"""RealnessGAN's generator loss, in its three objectives.

    With :math:`p = \mathrm{softmax}(r)` and :math:`q = \mathrm{softmax}(f)`:

    ========= ===================================================== ==============================================
    objective loss                                                  gradient to the fake logits
    ========= ===================================================== ==============================================
    1         :math:`-\mathrm{KL}(A_0 \| q)`                        :math:`A_0 - S_0 q`
    2         :math:`\mathrm{KL}(p \| q) - \mathrm{KL}(A_0 \| q)`   :math:`A_0 - p + (1 - S_0) q`
    3         :math:`\mathrm{KL}(A_1 \| q) - \mathrm{KL}(A_0 \| q)` :math:`A_0 - A_1 + (S_1 - S_0) q`
    ========= ===================================================== ==============================================

    For anchors that sum to one, objectives 2 and 3 are linear in the fake logits and no softmax of them is
    taken. Objective 2 also gives :math:`p \circ (\log p - \log q - \mathrm{KL}(p \| q))` to the real logits
    where they require grad. Objectives 1 and 3 are unbounded below; 2 is the paper's choice.

    Args:
        real_logits: D's raw output for real images, the shape of ``fake_logits``; used by objective 2 only,
            may be ``None`` otherwise.
        fake_logits: D's raw output for generated images, float16, bfloat16, float32 or float64.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``fake_logits``; used by objective 3 only, may be
            ``None`` otherwise.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        objective: 1, 2 or 3.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"``.
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: an objective that is not 1, 2 or 3, a ``None`` that the objective needs, shapes,
            dimension, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for the value and every gradient; each logit read once, each gradient written once.

    Source: Xiangli et al. 2020, equations 18, 19 and 20.

    Example:
        >>> import torch, gankernels as gk
        >>> fake = torch.zeros(1, 2, requires_grad=True)
        >>> gk.realness_g_loss(None, fake, None, torch.tensor([1.0, 0.0]), objective=1)  # -log 2
        tensor(-0.6931, grad_fn=<...>)
        >>> logits, anchor = torch.zeros(2, 7, 4), torch.full((4,), 0.25)  # one distribution per position
        >>> gk.realness_g_loss(logits, logits, anchor, anchor, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if validate:
        _validate_anchors(real_anchor, fake_anchor)
    if _backend.reference_serves(*_present(real_logits, fake_logits, real_anchor, fake_anchor)):
        return reference.realness_g_loss(
            real_logits, fake_logits, real_anchor, fake_anchor, objective, dim, reduction
        )
    return _backend.realness_g_loss(
        real_logits,
        fake_logits,
        real_anchor,
        fake_anchor,
        objective,
        dim,
        _backend.reduction_code(reduction),
    )


def negate_(t: Tensor) -> Tensor:
    r"""Negates a tensor in place and returns it.

    .. math:: t \leftarrow -t

    Under autograd an ordinary in-place operation: the version counter moves on, and the gradient of what
    follows is negated.

    Args:
        t: float16, bfloat16, float32 or float64; any strides whose elements do not share memory.

    Returns:
        ``t`` itself.

    Raises:
        TypeError: not floating-point.
        RuntimeError: a leaf that requires grad (outside ``torch.no_grad()``), or a tensor whose elements
            overlap in memory, such as an expanded one.

    Cost: one pass; no allocation.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.negate_(torch.tensor([1.0, -2.0]))
        tensor([-1.,  2.])
    """
    if _backend.reference_serves(t):
        return reference.negate_(t)
    return _backend.negate_(t)


def gradient_reversal(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    r"""Identity forward, the negated gradient backward.

    .. math:: R(x) = x, \qquad \text{backward: } g \mapsto -\alpha g

    Between generator and discriminator it lets one optimizer and one backward pass train both on the
    minimax loss. It is *not* the derivative of its forward: ``gradcheck`` fails on it by design, and two
    reversals in a row, or its double backward, multiply by :math:`\alpha^2`.

    The forward copies, whatever the input's memory belongs to (NumPy, a DataLoader worker, a file, the input
    buffer of a CUDA graph), so that an in-place layer (``ReLU(inplace=True)``) may follow. A view would make
    that layer an error; memory that is shared without being a view would let it change ``x`` for whoever else
    reads ``x``, a second head on the same features say, with gradients that know nothing of it; and memory
    that is copied on the first write moves away from under those who hold its address. The backward negates
    in place when, and only when, nobody else can see the gradient, and allocates otherwise.

    ``torch.fx.symbolic_trace`` records the call as one node.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        alpha: A number, or a tensor with one element (read on its device, without a host synchronisation).

    Returns:
        A tensor equal to ``x``.

    Raises:
        TypeError: ``x`` is not a dense floating-point tensor, or ``alpha`` is neither a number nor a tensor.
        ValueError: ``alpha`` is a tensor with another number of elements than one.

    Cost: forward one copy of ``x``; backward one pass over the gradient, in place where it may.

    Source: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", the gradient reversal layer.

    Example:
        >>> import torch, gankernels as gk
        >>> x = torch.ones(2, requires_grad=True)
        >>> gk.gradient_reversal(x, alpha=0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """
    if _backend.reference_serves(x):
        if has_torch_function_unary(x):
            return handle_torch_function(gradient_reversal, (x,), x, alpha)
        return reference.gradient_reversal(x, alpha)
    alpha = _checks.check_alpha(alpha)
    if isinstance(alpha, Tensor):
        return _backend.gradient_scale(x, alpha, -1.0)
    return _backend.gradient_scale(x, None, float(-alpha))


def gradient_scale(x: Tensor, scale: float | Tensor) -> Tensor:
    r"""Identity forward, a scaled gradient backward: one factor for all, or one per sample.

    .. math:: y = x, \qquad \text{backward: } g_n \mapsto s_n \, g_n

    Like :func:`gradient_reversal` it is not the derivative of its forward, returns memory of its own, and
    scales in place only what nobody else can see.

    Args:
        x: float16, bfloat16, float32 or float64, ``(N, *)``.
        scale: A number, a 0-dim tensor, or a tensor ``(N,)``; a constant for autograd.

    Returns:
        A tensor equal to ``x``.

    Raises:
        TypeError: ``x`` or ``scale`` is not a dense floating-point tensor (``scale`` may be a number).
        ValueError: ``scale`` has another shape than ``()`` or ``(N,)``.

    Cost: forward one copy of ``x``; backward one pass over the gradient, in place where it may.

    Example:
        >>> import torch, gankernels as gk
        >>> x = torch.ones(2, 2, requires_grad=True)
        >>> gk.gradient_scale(x, torch.tensor([1.0, -3.0])).sum().backward()
        >>> x.grad
        tensor([[ 1.,  1.],
                [-3., -3.]])
    """
    if _backend.reference_serves(x):
        if has_torch_function_unary(x):
            return handle_torch_function(gradient_scale, (x,), x, scale)
        return reference.gradient_scale(x, scale)
    if isinstance(scale, Tensor):
        return _backend.gradient_scale(x, scale, 1.0)
    _checks.check_number("scale", scale, "a tensor")
    return _backend.gradient_scale(x, None, float(scale))


def nonsaturating_ratio(fake_logits: Tensor, limit: float = 80.0) -> Tensor:
    r"""The factor that turns the discriminator's gradient at a generated image into the generator's.

    .. math::
        \frac{d L_G}{d f} \Big/ \frac{d L_D}{d f} = \frac{-\sigma(-f)}{\sigma(f)} = -e^{-f}

    for the non-saturating loss :math:`L_G = \mathrm{softplus}(-f)` against
    :math:`L_D = \mathrm{softplus}(f)`: with :class:`DeferredGradientScale` one backward pass trains both
    networks. Computed in float32 and clamped to :math:`e^{limit}`, so it stays finite for every logit.

    .. warning::
        Exact only where D treats samples independently. BatchNorm in D mixes them and makes the generator's
        gradient wrong; spectral, layer, instance and group normalisation are fine. Where D is so sure that
        its own gradient :math:`\sigma(f)` underflows (f < -100 in float32, f < -16 in float16) no factor
        brings the generator's back: ``training.steps.one_pass_step`` is exact there too.

    Args:
        fake_logits: One logit per sample, ``(N,)`` or ``(N, 1, ...)`` with ones.
        limit: Largest exponent, at most 88.

    Returns:
        ``(N,)``, float32 (float64 for float64 logits), detached.

    Raises:
        TypeError: not floating-point.
        ValueError: more than one logit per sample, or a limit outside (0, 88].

    Source: Shen et al. 2021, "Training Generative Adversarial Networks in One Stage" (CVPR).

    Example:
        >>> import torch, gankernels as gk
        >>> gk.nonsaturating_ratio(torch.tensor([0.0, 1.0]))
        tensor([-1.0000, -0.3679])
    """
    _checks.check_floating("fake_logits", fake_logits)
    _checks.check_one_logit_per_sample("fake_logits", fake_logits)
    if not 0 < limit <= 88:
        raise ValueError(f"limit must be in (0, 88], got {limit}")
    logits = fake_logits.detach().to(reference.accumulation_dtype(fake_logits.dtype))
    return -(-logits.reshape(-1)).clamp(max=limit).exp()


def resample_logits(
    mu_logvar: Tensor,
    dim: int = 1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Feature resampling: logits drawn from the means and log-variances that D puts out.

    .. math:: z = \mu + \varepsilon \, e^{v / 2}, \quad \varepsilon \sim N(0, 1)

    Gradients: :math:`g` to the means, :math:`\tfrac12 g (z - \mu)` to the log-variances: neither the noise
    nor the exponential is saved (float16 and bfloat16 save the noise: a rounded ``z`` has lost it).

    Args:
        mu_logvar: ``(N, 2K, *)``: K means, then K log-variances along ``dim``; float16, bfloat16, float32 or
            float64.
        dim: The dimension they are stacked along. Of ``(B, S, 2V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        generator: Source of the noise, for repeatability.
        noise: The noise itself, ``(N, K, *)``, instead of drawing it; a constant for autograd.

    Returns:
        ``(N, K, *)`` in the dtype of ``mu_logvar``; differentiable any number of times.

    Raises:
        TypeError: not floating-point.
        ValueError: an odd number of channels, or noise of another shape.

    Cost: one pass forward, one backward, beside drawing the noise.

    Source: Xiangli et al. 2020, "feature resampling"; the log-variance is halved as in the official code.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.resample_logits(torch.tensor([[1.0, 0.0]]), noise=torch.tensor([[2.0]]))
        tensor([[3.]])
        >>> gk.resample_logits(torch.zeros(2, 7, 6), dim=-1).shape  # (B, S, 2V)
        torch.Size([2, 7, 3])
    """
    if _backend.reference_serves(mu_logvar):
        return reference.resample_logits(mu_logvar, dim, generator, noise)
    noise = _noise("noise", noise, "mu_logvar", mu_logvar, dim, generator)
    return _backend.resample_logits(mu_logvar, noise, dim)


def _noise(
    name: str,
    noise: Tensor | None,
    statistics_name: str,
    statistics: Tensor,
    dim: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The noise as given, or drawn."""
    if noise is not None:
        _checks.check_floating(name, noise)
        return noise
    index = _checks.check_statistics(statistics_name, statistics, dim)
    shape = list(statistics.shape)
    shape[index] //= 2
    return reference.standard_normal(shape, statistics, generator)


def _noises(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    dim: int,
    real_noise: Tensor | None,
    fake_noise: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """The noise of both batches, drawn where it is not given; None for a batch that is not used."""
    real = real_statistics
    return (
        None if real is None else _noise("real_noise", real_noise, "real_statistics", real, dim),
        _noise("fake_noise", fake_noise, "fake_statistics", fake_statistics, dim),
    )


def resampled_realness_d_loss(
    real_statistics: Tensor,
    fake_statistics: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
) -> Tensor:
    r"""Feature resampling and RealnessGAN's discriminator loss as one operator.

    :func:`realness_d_loss` of :func:`resample_logits` of both batches; the logits in between are never
    rounded to 16 bits. Gradients: with :math:`g` the loss's gradient to the drawn logits :math:`z`,
    :math:`g` to the means and :math:`\tfrac12 g (z - \mu)` to the log-variances.

    Args:
        real_statistics: ``(N, 2K, *)``: D's K means, then K log-variances, for real images; float16,
            bfloat16, float32 or float64.
        fake_statistics: The same for generated images, same dtype and device.
        real_anchor: ``A1``, ``(K,)`` or one per row; a constant.
        fake_anchor: ``A0``, likewise.
        dim: The class dimension. Of ``(B, S, 2V)`` the default is the sequence: the vocabulary is ``dim=-1``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, as in :func:`realness_d_loss`.
        real_noise: ``(N, K, *)``; drawn where it is not given.
        fake_noise: Likewise.

    Returns:
        The loss in float32, or float64 for float64 statistics; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: an odd number of channels, shapes, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices; an anchor that requires grad.

    Cost: one autograd node instead of three; beside drawing the noise a third cheaper than resampling first
    at (128, 2 x 51) on a CPU (``benchmarks/results``).

    Source: Xiangli et al. 2020, equation 3 and "feature resampling".

    Example:
        >>> import torch, gankernels as gk
        >>> statistics, noise = torch.zeros(4, 4), torch.zeros(4, 2)
        >>> anchors = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> gk.resampled_realness_d_loss(
        ...     statistics, statistics, *anchors, real_noise=noise, fake_noise=noise
        ... )  # 2 log 2
        tensor(1.3863)
        >>> sequences, anchor = torch.zeros(2, 7, 6), torch.full((3,), 1 / 3)  # (B, S, 2V)
        >>> gk.resampled_realness_d_loss(
        ...     sequences, sequences, anchor, anchor, dim=-1, reduction="none"
        ... ).shape
        torch.Size([2, 7])
    """
    if _backend.reference_serves(real_statistics, fake_statistics, real_anchor, fake_anchor):
        return reference.resampled_realness_d_loss(
            real_statistics,
            fake_statistics,
            real_anchor,
            fake_anchor,
            dim,
            reduction,
            real_noise,
            fake_noise,
        )
    return _backend.resampled_realness_d_loss(
        real_statistics,
        fake_statistics,
        real_anchor,
        fake_anchor,
        *_noises(real_statistics, fake_statistics, dim, real_noise, fake_noise),
        dim,
        _backend.reduction_code(reduction),
    )


def resampled_realness_g_loss(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
) -> Tensor:
    r"""Feature resampling and RealnessGAN's generator loss as one operator.

    :func:`realness_g_loss` of :func:`resample_logits`; gradients as in
    :func:`resampled_realness_d_loss`.

    Args:
        real_statistics: ``(N, 2K, *)``; used by objective 2 only, may be ``None`` otherwise.
        fake_statistics: ``(N, 2K, *)``: K means, then K log-variances, for generated images.
        real_anchor: ``A1``; used by objective 3 only, may be ``None`` otherwise; a constant.
        fake_anchor: ``A0``; a constant.
        objective: 1, 2 or 3.
        dim: The class dimension. Of ``(B, S, 2V)`` the default is the sequence: the vocabulary is ``dim=-1``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        real_noise: ``(N, K, *)``; drawn where it is not given and used.
        fake_noise: Likewise.

    Returns:
        The loss in float32, or float64 for float64 statistics; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: an unknown objective, a ``None`` that it needs, an odd number of channels, shapes, anchor
            length or reduction that do not fit.
        RuntimeError: tensors on different devices; an anchor that requires grad.

    Cost: one autograd node instead of two or three.

    Source: Xiangli et al. 2020, equations 18, 19 and 20 and "feature resampling".

    Example:
        >>> import torch, gankernels as gk
        >>> fake, noise = torch.zeros(1, 4), torch.zeros(1, 2)
        >>> gk.resampled_realness_g_loss(
        ...     None, fake, None, torch.tensor([1.0, 0.0]), objective=1, fake_noise=noise
        ... )  # -log 2
        tensor(-0.6931)
        >>> sequences, anchor = torch.zeros(2, 7, 6), torch.full((3,), 1 / 3)  # (B, S, 2V)
        >>> gk.resampled_realness_g_loss(
        ...     sequences, sequences, anchor, anchor, dim=-1, reduction="none"
        ... ).shape
        torch.Size([2, 7])
    """
    if _backend.reference_serves(
        *_present(real_statistics, fake_statistics, real_anchor, fake_anchor)
    ):
        return reference.resampled_realness_g_loss(
            real_statistics,
            fake_statistics,
            real_anchor,
            fake_anchor,
            objective,
            dim,
            reduction,
            real_noise,
            fake_noise,
        )
    used = real_statistics if objective == 2 else None
    return _backend.resampled_realness_g_loss(
        real_statistics,
        fake_statistics,
        real_anchor,
        fake_anchor,
        *_noises(used, fake_statistics, dim, real_noise, fake_noise),
        objective,
        dim,
        _backend.reduction_code(reduction),
    )


def _present(
    real_logits: Tensor | None, fake_logits: Tensor, real_anchor: Tensor | None, fake_anchor: Tensor
) -> tuple[Tensor, ...]:
    """The arguments of a generator loss that may not be None, and those of the others that are not."""
    optional = tuple(x for x in (real_logits, real_anchor) if x is not None)
    return (fake_logits, fake_anchor, *optional)


def _validate_anchors(real_anchor: Tensor | None, fake_anchor: Tensor) -> None:
    if real_anchor is not None:
        _checks.check_anchor_values("real_anchor", real_anchor)
    _checks.check_anchor_values("fake_anchor", fake_anchor)
