"""Images through a network to features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankernels._extras import require
from gankernels.training.modes import evaluation_mode, on_device

__all__ = ["BATCH", "extract", "inception_features", "standard"]

BATCH = 256
"""Images through a network at a time."""


def standard(images: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """Bring ``uint8`` images, or floating-point ones in ``value_range``, to float32 in -1..1."""
    low, high = (0.0, 255.0) if images.dtype == torch.uint8 else value_range
    return images.float().sub(low).mul(2 / (high - low)).sub(1).clamp(-1, 1)


@torch.no_grad()
def extract(
    network: nn.Module,
    images: Tensor,
    value_range: tuple[float, float],
    device: torch.device | str,
) -> tuple[Tensor, Tensor | None]:
    """Run images through a feature network in evaluation mode; logits are None if it has none."""
    features: list[Tensor] = []
    logits: list[Tensor] = []
    with on_device(network, device), evaluation_mode(network):
        for part in torch.split(images, BATCH):
            found = network(standard(part.to(device), value_range))
            if isinstance(found, tuple):
                logits.append(found[1].cpu())
                found = found[0]
            features.append(found.flatten(1).cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


class _Inception(nn.Module):
    description = "Inception v3 features (2048, torch-fidelity's weights)"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        features: Tensor = self.network(pixels.expand(-1, 3, -1, -1))
        return features


def inception_features(weights: str | None = None) -> nn.Module:
    """Return Inception v3 as a feature network; with it the Fréchet distance is the FID.

    Args:
        weights: File of the weights; None lets torch-fidelity find or download them.

    Returns:
        A module from images in -1..1 to 2048 features.

    Raises:
        ImportError: torch-fidelity is not installed.
    """
    fid = require("torchmetrics.image.fid")
    if not require("torchmetrics.utilities.imports")._TORCH_FIDELITY_AVAILABLE:
        raise ImportError(
            "Inception features need torch-fidelity and its weights: pip install torch-fidelity; "
            "without them, use the classifier features"
        )
    network = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    return _Inception(network).eval()
