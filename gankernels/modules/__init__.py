"""GAN losses as modules: a discriminator loss and its generator loss under one name.

A training step needs only :class:`GANLoss`'s five members, so one step serves every loss.
"""

from gankernels.modules.base import GANLoss
from gankernels.modules.realness import RealnessLoss
from gankernels.modules.scalar import (
    HingeLoss,
    LogisticLoss,
    LSGANLoss,
    RelativisticLoss,
    RelativisticPairingLoss,
    WassersteinLoss,
)

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
