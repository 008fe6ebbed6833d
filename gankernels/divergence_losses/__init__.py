"""The losses of distributions over outcomes as functions: each is its documentation and one call."""

from gankernels.divergence_losses.kl import js_divergence, softmax_kl, softmax_kl_logits
from gankernels.divergence_losses.realness import realness_d_loss, realness_g_loss
from gankernels.divergence_losses.resampled import (
    resampled_realness_d_loss,
    resampled_realness_g_loss,
)

__all__ = [
    "js_divergence",
    "realness_d_loss",
    "realness_g_loss",
    "resampled_realness_d_loss",
    "resampled_realness_g_loss",
    "softmax_kl",
    "softmax_kl_logits",
]
