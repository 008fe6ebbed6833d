"""Gradients reversed and scaled: identities forward, factors backward."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from gankernels import _backend, _checks, reference

__all__ = [
    "gradient_reversal",
    "gradient_scale",
    "negate_",
    "nonsaturating_ratio",
]


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
    if not 0 < _checks.check_factor("limit", limit) <= 88:
        raise ValueError(f"limit must be in (0, 88], got {limit}")
    logits = fake_logits.detach().to(reference.accumulation_dtype(fake_logits.dtype))
    return -(-logits.reshape(-1)).clamp(max=limit).exp()
