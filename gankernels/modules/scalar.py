"""The losses of one logit per sample or patch as modules."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gankernels import _checks as check
from gankernels import functional as F
from gankernels.modules.base import Call, GANLoss


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
        >>> import torch
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

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> Call:
        options = {"reduction": self.reduction, "label_smoothing": self.label_smoothing}
        return Call(F.logistic_d_loss, (real_logits, fake_logits), options=options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> Call:
        function = F.saturating_g_loss if self.saturating else F.nonsaturating_g_loss
        return Call(function, (fake_logits,), options={"reduction": self.reduction})


class _TwoFunctionLoss(GANLoss):
    """A loss without options: one function for D, one for G."""

    _d_loss: Callable[..., Tensor]
    _g_loss: Callable[..., Tensor]

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> Call:
        options = {"reduction": self.reduction}
        return Call(self._d_loss, (real_logits, fake_logits), options=options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> Call:
        logits = (real_logits, fake_logits) if self.generator_uses_real else (fake_logits,)
        return Call(self._g_loss, logits, options={"reduction": self.reduction})


class HingeLoss(_TwoFunctionLoss):
    r"""Hinge loss: :math:`L_D = \max(0, 1 - r) + \max(0, 1 + f)`, :math:`L_G = -f`.

    (Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018.) The gradient at a kink is 0, as for
    ``torch.relu``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
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
        >>> import torch
        >>> RelativisticPairingLoss().discriminator(torch.zeros(4), torch.zeros(4))  # log 2
        tensor(0.6931)
    """

    generator_uses_real = True
    _d_loss = staticmethod(F.relativistic_pairing_d_loss)
    _g_loss = staticmethod(F.relativistic_pairing_g_loss)
