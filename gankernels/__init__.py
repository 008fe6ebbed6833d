"""Fused losses, gradient reversal and training steps for GANs in PyTorch."""

from gankernels import anchors, compat, penalties, reference
from gankernels._ops import build_info
from gankernels.functional import (
    gradient_reversal,
    gradient_scale,
    hinge_d_loss,
    hinge_g_loss,
    logistic_d_loss,
    lsgan_d_loss,
    lsgan_g_loss,
    negate_,
    nonsaturating_g_loss,
    nonsaturating_ratio,
    realness_d_loss,
    realness_g_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    resample_logits,
    resampled_realness_d_loss,
    resampled_realness_g_loss,
    saturating_g_loss,
    softmax_kl,
    softmax_kl_logits,
    wasserstein_d_loss,
    wasserstein_g_loss,
)
from gankernels.layers import DeferredGradientScale, FeatureResampling, GradientReversal
from gankernels.modules import (
    GANLoss,
    HingeLoss,
    LogisticLoss,
    LSGANLoss,
    RealnessLoss,
    RelativisticLoss,
    WassersteinLoss,
)
from gankernels.penalties import gradient_penalty, r1_penalty
from gankernels.value_and_grad import value_and_grad

__version__ = "0.1.0"
