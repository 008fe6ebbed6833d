"""Drop-in stand-ins for the losses of public code: same signatures, same numbers.

``GANLoss`` is the class of image-to-image and super-resolution code. The other two are of RealnessGAN
code: they take probabilities and add an epsilon inside the logarithm, as the originals do, and so share
the originals' limits: the gradient fades once a probability nears epsilon (about 2e-6 of the true
one at a logit gap of 50, exactly 0 from 90 on). New code should give logits to
``gankernels.realness_d_loss`` and ``gankernels.realness_g_loss``, which are exact at any gap and
cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from gankernels import _checks as check
from gankernels import anchors
from gankernels import functional as F
from gankernels._torch_internals import is_in_torch_dispatch_mode, transforms_active

__all__ = ["CategoricalLoss", "GANLoss", "kl_divergence"]


def kl_divergence(p: Tensor, q: Tensor, epsilon: float = 1e-16) -> Tensor:
    r"""The third article's divergence between probabilities: the mean over rows of

    .. math:: \sum_k p_k \log \frac{p_k + \epsilon}{q_k + \epsilon}

    With a (K,) ``p`` its logarithm is taken once for all rows. For ``q = softmax(logits)`` the
    exact value is ``gankernels.softmax_kl(logits, p)``, from one kernel.

    Args:
        p: Probabilities, ``(K,)`` or the shape of ``q``; differentiable.
        q: Probabilities, ``(N, K)`` with any trailing dimensions, classes along dim 1;
            differentiable.
        epsilon: Added to both inside the logarithm.

    Returns:
        0-dim, in the wider dtype of ``p`` and ``q``, but float32 for half inputs: there the
        original's epsilon of 1e-16 is 0 and its result inf or NaN at a zero probability.

    Raises:
        TypeError: an argument that is not a float tensor.
        ValueError: shapes that do not match; the original broadcasts (N, K) against (K, N) if it
            can.
        RuntimeError: two devices.

    Any order of derivative, any device, ``torch.func``, ``torch.compile``.

    Example:
        >>> p, q = torch.tensor([0.0, 1.0]), torch.tensor([[0.5, 0.5], [0.25, 0.75]])
        >>> kl_divergence(p, q)  # (log 2 + log 4/3) / 2
        tensor(0.4904)
    """
    index = check.check_logits("q", q, 1)
    check.check_target("p", p, "q", q, index)
    if p.ndim == 1:
        p = p.reshape([-1] + [1] * (q.ndim - 2))
    dtype = torch.promote_types(torch.promote_types(p.dtype, q.dtype), torch.float32)
    p, q = p.to(dtype), q.to(dtype)
    log_ratio = (p + epsilon).log() - (q + epsilon).log()
    return (p * log_ratio).sum(1).mean()


class CategoricalLoss(nn.Module):
    r"""The official repository's loss: cross-entropy of probabilities against a skewed anchor.

    .. math:: -\frac{1}{N} \sum_n \sum_k \tilde A_{nk} \log(feature_{nk} + 10^{-16})

    with :math:`\tilde A` the anchor moved by ``skewness`` along atoms on ``linspace(v_min,
    v_max)`` and projected back (``gankernels.anchors.skewed``). It differs from KL(anchor ||
    feature) by the anchor's entropy, a constant. The original rebuilds the projection at every
    call for every row; here it is a matrix, built once per skewness, device and dtype.

    Unlike the original it needs no ``.to(device)`` before the first call, ``.to`` returns the
    module, the anchor may be one ``(atoms,)`` vector for all rows, and half inputs are computed in
    float32.

    Args:
        atoms: Number of outcomes, at least 2.
        v_max: Position of the last atom.
        v_min: Position of the first atom, below ``v_max``.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``atoms < 2`` or ``v_min >= v_max``.

    Source: github.com/kam1107/RealnessGAN, ``training/loss.py``.

    Example:
        >>> loss = CategoricalLoss(atoms=3, v_max=1, v_min=-1)
        >>> logits, anchor = torch.zeros(4, 3), torch.tensor([0.25, 0.5, 0.25])
        >>> loss(anchor, logits.softmax(1), skewness=1.0)  # log 3
        tensor(1.0986)
        >>> loss.from_logits(anchor, logits, skewness=1.0)
        tensor(1.0986)
    """

    supports: Tensor

    def __init__(self, atoms: int = 51, v_max: float = 10, v_min: float = -10) -> None:
        super().__init__()
        check.check_integer("atoms", atoms, 2)
        check.check_factor("v_max", v_max)
        check.check_factor("v_min", v_min)
        anchors.skew_matrix(atoms, 0.0, v_min, v_max)  # refuses bad arguments here, not in forward
        self.atoms = atoms
        self.v_max = v_max
        self.v_min = v_min
        self.delta = (v_max - v_min) / (atoms - 1)
        supports = torch.linspace(v_min, v_max, atoms).view(1, 1, atoms)
        self.register_buffer("supports", supports, persistent=False)

    def forward(self, anchor: Tensor, feature: Tensor, skewness: float = 0.0) -> Tensor:
        """The original's value and gradients.

        Args:
            anchor: ``(N, atoms)`` or ``(atoms,)``; differentiable.
            feature: Probabilities, ``(N, atoms)``; differentiable.
            skewness: Distance to move the anchor, in units of ``v_min`` and ``v_max``.

        Returns:
            0-dim; float32, or float64 for float64 features.
        """
        skewed_anchor = self._skewed(anchor, "feature", feature, skewness)
        log_feature = (feature.to(skewed_anchor.dtype) + 1e-16).log()
        return -(skewed_anchor * log_feature).sum(-1).mean()

    def from_logits(self, anchor: Tensor, logits: Tensor, skewness: float = 0.0) -> Tensor:
        r"""The exact loss from logits: no epsilon, no fading gradient, zero bins allowed.

        .. math:: -\sum A \log q = \mathrm{KL}(A \| q) + H(A), \qquad q = \mathrm{softmax}(logits)

        One kernel for the divergence and its gradient. An anchor that requires grad (the
        repository's relativistic generator) takes plain PyTorch, as its gradient :math:`-\log q`
        is that of the cross-entropy, empty bins included.

        Args:
            anchor: ``(N, atoms)`` or ``(atoms,)``; differentiable.
            logits: Raw discriminator output, ``(N, atoms)``; differentiable.
            skewness: Distance to move the anchor, in units of ``v_min`` and ``v_max``.

        Returns:
            0-dim; float32, or float64 for float64 logits.
        """
        skewed_anchor = self._skewed(anchor, "logits", logits, skewness)
        if not (torch.is_grad_enabled() and skewed_anchor.requires_grad):
            entropy: Tensor = torch.special.entr(skewed_anchor).sum(-1).mean()
            return F.softmax_kl(logits, skewed_anchor) + entropy
        log_q = logits.to(skewed_anchor.dtype).log_softmax(1)
        # 0 log 0 = 0
        log_q = log_q.masked_fill((skewed_anchor == 0) & log_q.isneginf(), 0)
        return -(skewed_anchor * log_q).sum(-1).mean()

    def extra_repr(self) -> str:
        return f"atoms={self.atoms}, v_max={self.v_max}, v_min={self.v_min}"

    def _skewed(self, anchor: Tensor, name: str, values: Tensor, skewness: float) -> Tensor:
        """The skewed anchor in the accumulation dtype of ``values``."""
        check.check_logits(name, values, 1)
        if values.ndim != 2 or values.shape[1] != self.atoms:
            raise ValueError(f"{name} must have shape [N, {self.atoms}], got {list(values.shape)}")
        check.check_target("anchor", anchor, name, values, 1)
        dtype = torch.promote_types(values.dtype, torch.float32)
        return anchor.to(dtype) @ self._skew_matrix(float(skewness), dtype, values.device)

    def _skew_matrix(self, skew: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        make = anchors.skew_matrix if _is_traced() else _cached_skew_matrix
        return make(self.atoms, skew, self.v_min, self.v_max, dtype=dtype, device=device)


class GANLoss(nn.Module):
    r"""The loss that image-to-image and super-resolution code calls with a prediction and a boolean.

    ============= =================================== ===================================
    kind          ``target_is_real``                  otherwise
    ============= =================================== ===================================
    vanilla       :math:`\mathrm{softplus}(x) - b\,x` :math:`\mathrm{softplus}(x) - a\,x`
    lsgan         :math:`(x - b)^2`                   :math:`(x - a)^2`
    wgan          :math:`-x`                          :math:`x`
    wgan_softplus :math:`\mathrm{softplus}(-x)`       :math:`\mathrm{softplus}(x)`
    hinge, of D   :math:`\max(0, 1 - x)`              :math:`\max(0, 1 + x)`
    hinge, of G   :math:`-x`                          :math:`-x`
    ============= =================================== ===================================

    with the labels b and a, and the mean over all elements. ``loss_weight`` multiplies the generator's
    calls (``is_disc=False``) alone. Least squares have no half here: they are ``nn.MSELoss``.

    Args:
        kind: One of the above.
        real_label: ``b``; in [0, 1] for vanilla. The other kinds than vanilla and lsgan have no labels.
        fake_label: ``a``.
        loss_weight: A factor on the generator's calls.
        average: Divide the sum over a list of predictions by their number, as SPADE's class and BasicSR's
            for several scales do; pix2pixHD's sums.

    Raises:
        ValueError: an unknown kind, or a label of vanilla outside [0, 1].

    Source: ``basicsr/losses/gan_loss.py`` of github.com/XPixelGroup/BasicSR.

    Example:
        >>> loss = GANLoss("lsgan", loss_weight=0.1)
        >>> loss(torch.zeros(4, 1, 8, 8), True)  # for G
        tensor(0.1000)
        >>> loss(torch.zeros(4, 1, 8, 8), True, is_disc=True)
        tensor(1.)
        >>> GANLoss("hinge")([torch.zeros(4, 1), torch.ones(4, 1, 2, 2)], True)  # two discriminators
        tensor(-0.5000)
    """

    def __init__(
        self,
        kind: str,
        real_label: float = 1.0,
        fake_label: float = 0.0,
        loss_weight: float = 1.0,
        *,
        average: bool = True,
    ) -> None:
        super().__init__()
        if kind not in _GAN_LOSSES:
            raise ValueError(f"kind must be one of {', '.join(_GAN_LOSSES)}, got {kind!r}")
        if kind == "vanilla":
            check.check_label("real_label", real_label)
            check.check_label("fake_label", fake_label)
        real, fake, self._factor = _GAN_LOSSES[kind]
        if kind in ("vanilla", "lsgan"):
            real, fake = partial(real, real_label=real_label), partial(fake, fake_label=fake_label)
        self._real, self._fake = real, fake
        self.kind, self.real_label, self.fake_label = kind, real_label, fake_label
        self.loss_weight, self.average = loss_weight, average

    def forward(self, prediction: Any, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The loss of D's output.

        Args:
            prediction: Logits of any shape; or a list of them, one of each discriminator; or a list of lists
                (the feature maps of each discriminator), whose last entries are the logits.
            target_is_real: What the prediction is to be.
            is_disc: Whether the loss is D's.

        Returns:
            0-dim, float32 or float64.
        """
        if isinstance(prediction, (list, tuple)):
            prediction = [x[-1] if isinstance(x, (list, tuple)) else x for x in prediction]
        scale = self._factor * (1.0 if is_disc else self.loss_weight)
        loss = self._real if target_is_real else self._fake
        if self.kind == "hinge" and not is_disc:
            loss = F.hinge_g_loss
        value: Tensor = loss(prediction, scale=scale, average=self.average)
        return value

    def extra_repr(self) -> str:
        labels = f"real_label={self.real_label}, fake_label={self.fake_label}"
        return f"{self.kind!r}, {labels}, loss_weight={self.loss_weight}, average={self.average}"


_GAN_LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any], float]] = {
    "vanilla": (F.logistic_d_real_loss, F.logistic_d_fake_loss, 1.0),
    "lsgan": (F.lsgan_d_real_loss, F.lsgan_d_fake_loss, 2.0),
    "wgan": (F.wasserstein_d_real_loss, F.wasserstein_d_fake_loss, 1.0),
    "wgan_softplus": (F.logistic_d_real_loss, F.logistic_d_fake_loss, 1.0),
    "hinge": (F.hinge_d_real_loss, F.hinge_d_fake_loss, 1.0),
}
"""The losses of D on real and on fake logits, and what makes them the published ones."""


def _is_traced() -> bool:
    # A tensor made under torch.compile, a torch.func transform or fake tensors must not outlive it.
    return torch.compiler.is_compiling() or transforms_active() or is_in_torch_dispatch_mode()


@lru_cache(maxsize=64)
def _cached_skew_matrix(
    K: int, skew: float, low: float, high: float, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor could not be used in training later
        return anchors.skew_matrix(K, skew, low, high, dtype=dtype, device=device)
