"""The losses of one logit per sample or patch as functions: each is its documentation and one call."""

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
    "nonsaturating_g_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
    "relativistic_pairing_d_loss",
    "relativistic_pairing_g_loss",
    "saturating_g_loss",
    "wasserstein_d_fake_loss",
    "wasserstein_d_loss",
    "wasserstein_d_real_loss",
    "wasserstein_g_loss",
]
