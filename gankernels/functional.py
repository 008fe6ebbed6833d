"""The operators as functions, each in the module of its family: its documentation and one call."""

from gankernels.divergence_losses.kl import js_divergence, softmax_kl, softmax_kl_logits
from gankernels.divergence_losses.realness import realness_d_loss, realness_g_loss
from gankernels.divergence_losses.resampled import (
    resampled_realness_d_loss,
    resampled_realness_g_loss,
)
from gankernels.feature_matching import feature_matching_loss
from gankernels.gradients import gradient_reversal, gradient_scale, negate_, nonsaturating_ratio
from gankernels.resampling import resample_logits
from gankernels.scalar_losses.hinge import (
    hinge_d_fake_loss,
    hinge_d_loss,
    hinge_d_real_loss,
    hinge_g_loss,
)
from gankernels.scalar_losses.logistic import (
    logistic_d_fake_loss,
    logistic_d_loss,
    logistic_d_real_loss,
    nonsaturating_g_loss,
    saturating_g_loss,
)
from gankernels.scalar_losses.lsgan import (
    lsgan_d_fake_loss,
    lsgan_d_loss,
    lsgan_d_real_loss,
    lsgan_g_loss,
)
from gankernels.scalar_losses.relativistic import (
    relativistic_d_loss,
    relativistic_g_loss,
    relativistic_pairing_d_loss,
    relativistic_pairing_g_loss,
)
from gankernels.scalar_losses.wasserstein import (
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
    "js_divergence",
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
