"""Fused losses, gradient reversal and training steps for GANs in PyTorch."""

from gankernels import anchors, compat, reference
from gankernels._ops import build_info
from gankernels.functional import (
    realness_d_loss,
    realness_g_loss,
    softmax_kl,
    softmax_kl_logits,
)
from gankernels.modules import (
    GANLoss,
    HingeLoss,
    LogisticLoss,
    LSGANLoss,
    RealnessLoss,
    RelativisticLoss,
    WassersteinLoss,
)
from gankernels.value_and_grad import value_and_grad
