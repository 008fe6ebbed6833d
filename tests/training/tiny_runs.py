"""Presets that stay what they are and take a second."""

from __future__ import annotations

from typing import Any

from gankernels.training import RECIPES

FAST = "--batch-size 8 --samples 4 --quiet"


def tiny(recipe: str, preset: str) -> dict[str, Any]:
    """Changes that leave a preset what it is, and make it fast."""
    base = RECIPES[recipe].presets[preset]
    small: dict[str, Any] = {"steps": 4, "batch_size": 4, "samples": 2, "device": "cpu"}
    small |= {"log_every": 1, "sample_every": 2, "checkpoint_every": 3}
    if base.data == "gaussians":
        return {**small, "network_options": {"g_width": 8, "d_width": 4}}
    small["image_size"] = 8
    if recipe == "grl":
        small["channels"] = 3  # one channel has one memory format
    if base.network != "realness_article":
        small["network_options"] = {**base.network_options, "width": 4}
    return small
