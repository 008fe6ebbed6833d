"""GAN losses as modules: a discriminator loss and its generator loss under one name.

A training step needs only :class:`GANLoss`'s five members, so one step serves every loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gankernels import _checks as check
from gankernels import functional as F
from gankernels._value_and_grad import value_and_grad

__all__ = [
    "GANLoss",
    "HingeLoss",
    "LSGANLoss",
    "LogisticLoss",
    "RealnessLoss",
    "RelativisticLoss",
    "RelativisticPairingLoss",
    "WassersteinLoss",
]


class _Call(NamedTuple):
    """A functional loss and what to call it with; ``logits`` come first among its arguments."""

    function: Callable[..., Tensor]
    logits: tuple[Tensor | None, ...]
    constants: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})

    def loss(self) -> Tensor:
        return self.function(*self.logits, *self.constants, **self.options)

    def value_and_grad(self, grad_scale: float) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        # Only the package's own losses take grad_scale.
        scale = {} if grad_scale == 1 else {"grad_scale": grad_scale}
        return value_and_grad(self.function)(*self.logits, *self.constants, **self.options, **scale)


class GANLoss(nn.Module):
    """Base of the losses: what a training step may ask of any of them.

    A subclass says which functional loss serves each network (``_discriminator_call`` and
    ``_generator_call``); everything else is here. Logits are raw outputs of D, larger = more real,
    and always come as ``(real_logits, fake_logits)``.

    Args:
        reduction: ``"mean"`` (each batch by its own count), ``"sum"`` or ``"none"``.

    Raises:
        ValueError: unknown reduction.
    """

    generator_uses_real: bool = False
    """Whether the generator loss needs D's logits of real images; if not, a step can skip them."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check.check_reduction(reduction)
        self.reduction = reduction

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss that the discriminator minimises, differentiable any number of times."""
        return self._discriminator_call(real_logits, fake_logits).loss()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """The loss that the generator minimises, differentiable any number of times.

        ``real_logits`` may be ``None``, and is ignored, unless :attr:`generator_uses_real`.
        """
        return self._generator_call(real_logits, fake_logits).loss()

    def discriminator_value_and_grad(
        self, real_logits: Tensor, fake_logits: Tensor, grad_scale: float = 1.0
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """``(loss, (g_real, g_fake))`` without building a graph; see ``gankernels.value_and_grad``.

        If any of the logits requires grad, the gradient of those that do not is ``None``.
        ``grad_scale`` multiplies the gradients, not the loss.
        """
        call = self._discriminator_call(real_logits, fake_logits)
        loss, (g_real, g_fake) = call.value_and_grad(grad_scale)
        return loss, (g_real, g_fake)

    def generator_value_and_grad(
        self, real_logits: Tensor | None, fake_logits: Tensor, grad_scale: float = 1.0
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """``(loss, (g_real, g_fake))`` without building a graph; see ``gankernels.value_and_grad``.

        ``g_real`` is ``None`` where the loss does not use the real logits, or where they do not
        require grad and the fake logits do.
        """
        loss, grads = self._generator_call(real_logits, fake_logits).value_and_grad(grad_scale)
        # A loss of the fake logits alone has one gradient.
        g_real = grads[0] if len(grads) == 2 and self.generator_uses_real else None
        return loss, (g_real, grads[-1])

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> _Call:
        raise TypeError(f"{type(self).__name__} must define _discriminator_call, got no definition")

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> _Call:
        raise TypeError(f"{type(self).__name__} must define _generator_call, got no definition")


class RealnessLoss(GANLoss):
    r"""RealnessGAN: D gives a distribution over realness and is trained towards two anchors.

    .. math::
        L_D = \mathrm{KL}(A_1 \| p) + \mathrm{KL}(A_0 \| q), \quad
        p = \mathrm{softmax}(real), \; q = \mathrm{softmax}(fake)

    with the generator's objective 1: :math:`-\mathrm{KL}(A_0 \| q)`,
    2: :math:`\mathrm{KL}(p \| q) - \mathrm{KL}(A_0 \| q)`,
    3: :math:`\mathrm{KL}(A_1 \| q) - \mathrm{KL}(A_0 \| q)`
    (Xiangli et al. 2020, equations 3 and 18 to 20; 2 is the paper's choice).

    The anchors are buffers: they are saved with the module and move with ``.to(device)``. They
    keep at least float32 through ``.half()``, ``.bfloat16()`` and ``.to(dtype)``: rounding the
    target changes the loss that is minimised, and the kernels compute in float32 whatever the
    logits' dtype.

    Args:
        real_anchor: ``A1``, ``(K,)`` or one distribution per row; copied, at least float32.
        fake_anchor: ``A0``, likewise.
        objective: The generator's objective, 1, 2 or 3.
        dim: The class dimension of the logits. Of ``(B, S, V)`` the default is the sequence: the vocabulary
            is ``dim=-1``.
        reduction: ``"mean"``, ``"batchmean"``, ``"sum"`` or ``"none"``.
        validate: Check the anchors' values once, here.
        scale: A factor on both losses and their gradients.
        draw: ``draw()`` gives another ``(real_anchor, fake_anchor)``, which :meth:`redraw` puts in place.

    Raises:
        TypeError: an anchor that is not a float tensor, a factor that is not a number, a ``draw`` that
            cannot be called.
        ValueError: an anchor with a negative, NaN or infinite entry or with no mass (if
            ``validate``), two vectors of different length, unknown objective or reduction.

    Example:
        >>> anchors = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> loss = RealnessLoss(*anchors)
        >>> loss.discriminator(torch.zeros(8, 2), torch.zeros(8, 2))  # 2 log 2
        tensor(1.3863)
        >>> logits = torch.zeros(1, 2)
        >>> value, (g_real, g_fake) = loss.generator_value_and_grad(logits, logits)
        >>> g_fake  # A0 - p
        tensor([[ 0.5000, -0.5000]])
        >>> loss.generator_uses_real, RealnessLoss(*anchors, objective=1).generator_uses_real
        (True, False)
        >>> sequences = torch.zeros(4, 7, 2)  # (B, S, V): one distribution per position
        >>> RealnessLoss(*anchors, dim=-1, reduction="none").discriminator(sequences, sequences).shape
        torch.Size([4, 7])
    """

    real_anchor: Tensor
    fake_anchor: Tensor

    def __init__(
        self,
        real_anchor: Tensor,
        fake_anchor: Tensor,
        objective: int = 2,
        dim: int = 1,
        reduction: str = "mean",
        validate: bool = True,
        *,
        scale: float = 1.0,
        draw: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if draw is not None and not callable(draw):
            raise TypeError(f"draw must be a function without arguments, got {type(draw).__name__}")
        check.check_divergence_reduction(reduction)
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.scale = check.check_factor("scale", scale)
        check.check_objective(check.check_integer("objective", objective))
        check.check_integer("dim", dim)
        for name, anchor in (("real_anchor", real_anchor), ("fake_anchor", fake_anchor)):
            check.check_floating(name, anchor)
            if validate:
                check.check_anchor_values(name, anchor)
            dtype = torch.promote_types(anchor.dtype, torch.float32)
            self.register_buffer(name, anchor.detach().to(dtype, copy=True))
        if real_anchor.ndim == fake_anchor.ndim == 1:
            check.check_same_shape("real_anchor", real_anchor, "fake_anchor", fake_anchor)
        self.objective = objective
        self.dim = dim
        self.draw = draw

    def redraw(self) -> None:
        """Draw the anchors anew, in place: once per step, before it, as the authors' code does.

        The anchors of :func:`gankernels.anchors.article` and ``official`` are histograms of 1,000 draws,
        and github.com/kam1107/RealnessGAN (``train_toy.py``) draws them at every iteration, one pair for
        both networks. A CUDA graph reads what is in the buffers when it is replayed, so a loop of
        replays calls this between them, never within the capture.

        Raises:
            RuntimeError: the loss was made without ``draw``.
            TypeError: ``draw`` returned something else than two float tensors.
            ValueError: it returned another shape than that of the anchors in place.

        Example:
            >>> import gankernels as gk
            >>> draw = lambda: gk.anchors.official(5)
            >>> loss = RealnessLoss(*draw(), draw=draw)
            >>> before = loss.real_anchor.clone()
            >>> loss.redraw()
            >>> bool((loss.real_anchor == before).all())
            False
        """
        if self.draw is None:
            raise RuntimeError("redraw needs RealnessLoss(..., draw=...), got a loss without draw")
        drawn = dict(zip(("real_anchor", "fake_anchor"), self.draw(), strict=True))
        for name, anchor in drawn.items():
            check.check_floating(f"{name} of draw()", anchor)
            check.check_same_shape(name, getattr(self, name), f"{name} of draw()", anchor)
        for name, anchor in drawn.items():
            getattr(self, name).copy_(anchor)

    @property
    def generator_uses_real(self) -> bool:  # type: ignore[override]
        """Objective 2 compares the fake images' distribution with the real images'."""
        return self.objective == 2

    def extra_repr(self) -> str:
        anchors = f"real_anchor={tuple(self.real_anchor.shape)}, "
        anchors += f"fake_anchor={tuple(self.fake_anchor.shape)}"
        settings = f"objective={self.objective}, dim={self.dim}, scale={self.scale}"
        return f"{anchors}, {settings}, {super().extra_repr()}"

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> _Call:
        options = {"dim": self.dim, "reduction": self.reduction, "scale": self.scale}
        anchors = self.real_anchor, self.fake_anchor
        return _Call(F.realness_d_loss, (real_logits, fake_logits), anchors, options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> _Call:
        options = {
            "objective": self.objective,
            "dim": self.dim,
            "reduction": self.reduction,
            "scale": self.scale,
        }
        anchors = self.real_anchor, self.fake_anchor
        return _Call(F.realness_g_loss, (real_logits, fake_logits), anchors, options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RealnessLoss:
        before = {name: getattr(self, name) for name in ("real_anchor", "fake_anchor")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, anchor in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, anchor.to(moved.device))
        return self


class LogisticLoss(GANLoss):
    r"""The standard GAN loss on logits: two binary cross-entropies.

    .. math::
        L_D = \mathrm{softplus}(-r) + s \, r + \mathrm{softplus}(f), \qquad
        L_G = \mathrm{softplus}(-f) \text{ or, saturating, } -\mathrm{softplus}(f)

    (Goodfellow et al. 2014, the minimax game and the alternative they train G with). One-sided
    label smoothing gives real images the target ``1 - s`` (Salimans et al. 2016).

    Args:
        label_smoothing: ``s`` in [0, 1).
        saturating: Train G with the minimax loss, as a gradient reversal layer does.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: ``label_smoothing`` outside [0, 1), unknown reduction.

    Example:
        >>> loss = LogisticLoss()
        >>> loss.discriminator(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
        >>> loss.generator_value_and_grad(None, torch.zeros(2))
        (tensor(0.6931), (None, tensor([-0.2500, -0.2500])))
    """

    def __init__(
        self, label_smoothing: float = 0.0, saturating: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check.check_label_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        self.saturating = saturating

    def extra_repr(self) -> str:
        options = f"label_smoothing={self.label_smoothing}, saturating={self.saturating}"
        return f"{options}, {super().extra_repr()}"

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> _Call:
        options = {"reduction": self.reduction, "label_smoothing": self.label_smoothing}
        return _Call(F.logistic_d_loss, (real_logits, fake_logits), options=options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> _Call:
        function = F.saturating_g_loss if self.saturating else F.nonsaturating_g_loss
        return _Call(function, (fake_logits,), options={"reduction": self.reduction})


class _TwoFunctionLoss(GANLoss):
    """A loss without options: one function for D, one for G."""

    _d_loss: Callable[..., Tensor]
    _g_loss: Callable[..., Tensor]

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> _Call:
        options = {"reduction": self.reduction}
        return _Call(self._d_loss, (real_logits, fake_logits), options=options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> _Call:
        logits = (real_logits, fake_logits) if self.generator_uses_real else (fake_logits,)
        return _Call(self._g_loss, logits, options={"reduction": self.reduction})


class HingeLoss(_TwoFunctionLoss):
    r"""Hinge loss: :math:`L_D = \max(0, 1 - r) + \max(0, 1 + f)`, :math:`L_G = -f`.

    (Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018.) The gradient at a kink is 0, as for
    ``torch.relu``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> HingeLoss().discriminator(torch.tensor([0.5, 2.0]), torch.tensor([-0.5, -2.0]))
        tensor(0.5000)
    """

    _d_loss = staticmethod(F.hinge_d_loss)
    _g_loss = staticmethod(F.hinge_g_loss)


class WassersteinLoss(_TwoFunctionLoss):
    r"""Wasserstein loss: :math:`L_D = f - r`, :math:`L_G = -f` (Arjovsky et al. 2017).

    The critic must be kept Lipschitz by other means, for instance
    ``gankernels.penalties.gradient_penalty``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> WassersteinLoss().discriminator(torch.tensor([1.0, 2.0]), torch.tensor([0.0]))
        tensor(-1.5000)
    """

    _d_loss = staticmethod(F.wasserstein_d_loss)
    _g_loss = staticmethod(F.wasserstein_g_loss)


class LSGANLoss(_TwoFunctionLoss):
    r"""Least squares: :math:`L_D = ((r - 1)^2 + f^2) / 2`, :math:`L_G = (f - 1)^2 / 2`.

    (Mao et al. 2017, "Least Squares Generative Adversarial Networks", with its 0-1 coding: labels
    1 for real, 0 for fake, and 1 for what G wants D to believe.)

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> LSGANLoss().discriminator(torch.tensor([0.0]), torch.tensor([2.0]))
        tensor(2.5000)
    """

    _d_loss = staticmethod(F.lsgan_d_loss)
    _g_loss = staticmethod(F.lsgan_g_loss)


class RelativisticLoss(_TwoFunctionLoss):
    r"""Relativistic average loss: each logit is judged against the mean of the other batch.

    .. math::
        L_D = \mathrm{softplus}(-(r - \bar f)) + \mathrm{softplus}(f - \bar r), \qquad
        L_G = \mathrm{softplus}(-(f - \bar r)) + \mathrm{softplus}(r - \bar f)

    (Jolicoeur-Martineau 2019, "The relativistic discriminator", RaSGAN.) The means run over all
    elements of a batch, so the loss of a sample depends on its batch.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> RelativisticLoss().generator(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
    """

    generator_uses_real = True
    _d_loss = staticmethod(F.relativistic_d_loss)
    _g_loss = staticmethod(F.relativistic_g_loss)


class RelativisticPairingLoss(_TwoFunctionLoss):
    r"""Relativistic pairing loss: each real logit is judged against one fake logit.

    .. math::
        L_D = \mathrm{softplus}(-(r - f)), \qquad L_G = \mathrm{softplus}(-(f - r))

    (Jolicoeur-Martineau 2019, RSGAN; Huang et al. 2024, "The GAN is dead; long live the GAN!", with R1 and
    R2: ``gankernels.r1_penalty``, ``gankernels.r2_penalty``.) Both batches have the same shape.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> RelativisticPairingLoss().discriminator(torch.zeros(4), torch.zeros(4))  # log 2
        tensor(0.6931)
    """

    generator_uses_real = True
    _d_loss = staticmethod(F.relativistic_pairing_d_loss)
    _g_loss = staticmethod(F.relativistic_pairing_g_loss)
