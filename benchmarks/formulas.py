"""What users would otherwise write: the published formulas and the best of stock PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor


def epsilon_kl_of_probabilities(p: Tensor, q: Tensor, epsilon: float = 1e-16) -> Tensor:
    """KL of probabilities with an epsilon in the logarithm, as RealnessGAN tutorials have it."""
    return torch.mean(torch.sum(p * torch.log((p + epsilon) / (q + epsilon)), dim=1))


def epsilon_realness_d(real: Tensor, fake: Tensor, a1: Tensor, a0: Tensor) -> Tensor:
    kl = epsilon_kl_of_probabilities
    return kl(a1, F.softmax(real, dim=1)) + kl(a0, F.softmax(fake, dim=1))


def categorical_cross_entropy(anchor: Tensor, logits: Tensor) -> Tensor:
    """The official CategoricalLoss without its projection: -sum A log(softmax + 1e-16)."""
    q = logits.log_softmax(1).exp()
    return -(anchor * (q + 1e-16).log()).sum(1).mean()


def categorical_realness_d(real: Tensor, fake: Tensor, a1: Tensor, a0: Tensor) -> Tensor:
    return categorical_cross_entropy(a1, real) + categorical_cross_entropy(a0, fake)


def kl_div_realness_d(real: Tensor, fake: Tensor, a1: Tensor, a0: Tensor) -> Tensor:
    """F.kl_div of log_softmax; it needs the anchor expanded to the batch, and knows no mean over positions."""
    real_term = F.kl_div(F.log_softmax(real, 1), a1.expand_as(real), reduction="batchmean")
    fake_term = F.kl_div(F.log_softmax(fake, 1), a0.expand_as(fake), reduction="batchmean")
    total = real_term + fake_term
    return total if real.dim() == 2 else total / math.prod(real.shape[2:])


def cross_entropy_realness_d(real: Tensor, fake: Tensor, a1: Tensor, a0: Tensor) -> Tensor:
    """F.cross_entropy with probability targets: KL up to the anchor's entropy."""
    return F.cross_entropy(real, a1.expand_as(real)) + F.cross_entropy(fake, a0.expand_as(fake))


def kl_div_js(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """The Jensen-Shannon divergence as it is usually written: F.kl_div to the mixture, twice."""
    log_p, log_q = F.log_softmax(p_logits, 1), F.log_softmax(q_logits, 1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    both = (F.kl_div(log_m, log, reduction="batchmean", log_target=True) for log in (log_p, log_q))
    return 0.5 * (next(both) + next(both))


def bce_logistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Two BCE-with-logits terms against ones and zeros, as every DCGAN tutorial has them."""
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


def softplus_logistic_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


REALNESS_D = {
    "article formula": epsilon_realness_d,
    "official formula": categorical_realness_d,
    "F.kl_div": kl_div_realness_d,
    "F.cross_entropy": cross_entropy_realness_d,
}
JS_DIVERGENCE = {"F.kl_div": kl_div_js}
LOGISTIC_D = {"BCE with logits": bce_logistic_d, "F.softplus": softplus_logistic_d}

EACH: dict[str, Callable[..., Tensor]] = {
    "logistic_d_loss": lambda r, f: F.softplus(-r) + F.softplus(f),
    "logistic_d_real_loss": lambda r: F.softplus(-r),
    "logistic_d_fake_loss": lambda f: F.softplus(f),
    "nonsaturating_g_loss": lambda f: F.softplus(-f),
    "saturating_g_loss": lambda f: -F.softplus(f),
    "hinge_d_loss": lambda r, f: F.relu(1 - r) + F.relu(1 + f),
    "hinge_d_real_loss": lambda r: F.relu(1 - r),
    "hinge_d_fake_loss": lambda f: F.relu(1 + f),
    "hinge_g_loss": lambda f: -f,
    "wasserstein_d_loss": lambda r, f: f - r,
    "wasserstein_d_real_loss": lambda r: -r,
    "wasserstein_d_fake_loss": lambda f: f,
    "wasserstein_g_loss": lambda f: -f,
    "lsgan_d_loss": lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2,
    "lsgan_d_real_loss": lambda r: 0.5 * (r - 1) ** 2,
    "lsgan_d_fake_loss": lambda f: 0.5 * f**2,
    "lsgan_g_loss": lambda f: 0.5 * (f - 1) ** 2,
    "relativistic_d_loss": lambda r, f: F.softplus(f.mean() - r) + F.softplus(f - r.mean()),
    "relativistic_g_loss": lambda r, f: F.softplus(r - f.mean()) + F.softplus(r.mean() - f),
    "relativistic_pairing_d_loss": lambda r, f: F.softplus(f - r),
    "relativistic_pairing_g_loss": lambda r, f: F.softplus(r - f),
}
"""The losses of every element, as a line of a training script has them."""


def installed_realness_d() -> dict[str, Callable[..., Tensor]]:
    """Primitives of other packages, where those are installed; they need a GPU."""
    if find_spec("liger_kernel") is None:
        return {}
    from liger_kernel.transformers import LigerKLDIVLoss  # type: ignore[import-not-found]

    divergence = LigerKLDIVLoss(reduction="batchmean")

    def liger(real: Tensor, fake: Tensor, a1: Tensor, a0: Tensor) -> Tensor:
        terms = ((real, a1), (fake, a0))
        return sum(divergence(F.log_softmax(x, 1), a.expand_as(x).contiguous()) for x, a in terms)

    return {"Liger": liger}


class NegatedGradient(torch.autograd.Function):
    """The gradient reversal layer as it is usually written: it allocates the negated gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return -grads[0]


class NoOperation(torch.autograd.Function):
    """A node that does nothing: what the autograd engine costs around any loss of two batches."""

    @staticmethod
    def forward(ctx, real: Tensor, fake: Tensor, loss: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[None, None, None]:  # type: ignore[no-untyped-def]
        return None, None, None
