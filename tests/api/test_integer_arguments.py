"""Every integer that a public function takes is held to be one, by name: a count, a size, a dimension, a seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gankernels as gk
from gankernels import anchors, compat, plots, training
from gankernels.testing import OPERATORS
from gankernels.training import (
    ImageData,
    Players,
    StepConfig,
    TrainConfig,
    data,
    evaluation,
    networks,
    sampling,
)

# All but gankernels.testing and what is made for one backend.
ROOMS = (gk, anchors, compat, plots, training, data, evaluation, networks, sampling)
# Wrong calls of the operators and of the configurations have tables of their own.
ELSEWHERE = {*(operator.functional.__name__ for operator in OPERATORS), "TrainConfig", "StepConfig"}
NO_COUNTS = [None, 1.5, "2", True, [1], float("nan"), torch.tensor(1.5), 10**30]

ANCHOR = torch.full((4,), 0.25)
IMAGES = torch.rand(16, 1, 8, 8)
LABELLED = ImageData(
    IMAGES.mul(255).byte().repeat(4, 1, 1, 1), torch.arange(64) % 4, "x", tuple("abcd")
)
FEATURES = torch.rand(12, 3)
SIZES = {"image_size": 32, "channels": 1, "outcomes": 2, "noise_dim": 8}


def step(function: Callable[..., Any], **given: Any) -> Any:
    """A training step of two linear networks."""
    generator, discriminator = nn.Linear(2, 3), nn.Linear(3, 1)
    optimizer = torch.optim.SGD([*generator.parameters(), *discriminator.parameters()], lr=0.1)
    players = Players(generator, discriminator, optimizer, optimizer)
    loss = gk.LogisticLoss(saturating=function is training.reversal_step)
    config = StepConfig(r1_gamma=1.0)
    return function(players, loss, torch.rand(4, 3), lambda n: torch.randn(n, 2), config, **given)


CALLS: dict[str, dict[str, Any]] = {
    "article": {"K": 5, "seed": 0},
    "gaussian": {"K": 5, "mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0},
    "histogram": {"samples": torch.rand(9), "K": 5},
    "official": {"K": 5, "seed": 0},
    "skew_matrix": {"K": 5, "skew": 0.5, "low": 0.0, "high": 1.0},
    "uniform": {"K": 5},
    "CategoricalLoss": {"atoms": 5},
    "FeatureResampling": {"dim": 0},
    "GradientReversal": {"schedule": "linear", "steps": 5},
    "LeCamPenalty": {"discriminators": 2},
    "RealnessLoss": {"real_anchor": ANCHOR, "fake_anchor": ANCHOR, "objective": 2, "dim": 1},
    "gradient_penalty": {
        "discriminator": nn.Linear(4, 4), "real_images": torch.rand(3, 4), "fake_images": torch.rand(3, 4),
        "outcomes": torch.arange(4.0), "dim": 1,
    },
    "r1_penalty": {"outcomes": torch.arange(4.0), "dim": 1},
    "r2_penalty": {"outcomes": torch.arange(4.0), "dim": 1},
    "save_animation": {"png_paths": None, "gif_path": None, "milliseconds": 9},
    "save_grid": {"images": IMAGES, "path": None, "value_range": (0, 1), "columns": 2},
    "save_samples": {"samples": IMAGES, "path": None, "value_range": (0, 1), "columns": 2},
    "BatchStream": {"data": LABELLED, "batch_size": 4, "seed": 0, "rank": 0, "world_size": 1},
    "load": {"spec": "digits", "image_size": 8, "channels": 1},
    "FeatureNetwork": {"channels": 1, "num_classes": 3, "num_features": 4, "stride": 1},
    "train_feature_network": {"image_data": LABELLED, "seed": 0, "steps": 1, "batch_size": 4},
    "kernel_distance": {
        "real_features": FEATURES, "fake_features": FEATURES, "seed": 0, "subsets": 2, "subset_size": 4
    },
    "precision_recall": {"real_features": FEATURES, "fake_features": FEATURES, "neighbours": 2, "block": 8},
    "evaluate_samples": {
        "real_images": IMAGES, "fake_images": IMAGES, "features": nn.Flatten(), "seed": 0, "subsets": 2,
        "neighbours": 2,
    },
    "evaluate_run": {
        "generator_fn": lambda n: torch.rand(n, 1, 8, 8), "image_data": LABELLED, "n_samples": 8, "device": "cpu",
        "value_range": (0, 1), "seed": 0, "feature_steps": 1,
    },
    "sampler": {"network": nn.Linear(8, 2), "config": TrainConfig(noise_dim=8), "device": "cpu", "seed": 0},
    "Maxout": {"inputs": 3, "outputs": 4, "pieces": 2},
    "ReversalGAN": {"generator": nn.Linear(4, 2), "discriminator": nn.Linear(2, 1), "noise_dim": 4},
    "realness_article": SIZES,
    **{name: {**SIZES, "width": 8} for name in ("dcgan_article", "dcgan_small", "dcgan_spectral", "grl_mlp")},
    "toy_mlp": {"outcomes": 2, "noise_dim": 8, "g_width": 8, "d_width": 8},
    **{f"{kind}_step": {"iteration": 0} for kind in ("alternating", "one_pass", "ratio", "reversal")},
}  # fmt: skip


def integers(function: Callable[..., Any]) -> list[str]:
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if str(p.annotation) in ("int", "int | None")]


@cache
def functions() -> dict[str, Callable[..., Any]]:
    """Every public function and class that takes an integer, by name."""
    found = {}
    for room in ROOMS:
        for name in room.__all__:
            function = getattr(room, name)
            if not callable(function) or name in ELSEWHERE:
                continue
            if isinstance(function, type) and issubclass(function, Exception):
                continue  # made where something failed
            if integers(function):
                found[name] = function
    return found


def cases() -> Iterator[Any]:
    for name, function in functions().items():
        for argument in integers(function):
            yield pytest.param(name, argument, id=f"{name}-{argument}")


def call(name: str, folder: Path, **changed: Any) -> Any:
    function, given = functions()[name], {**CALLS[name], **changed}
    if name.endswith("_step"):
        return step(function, **given)
    if name in ("r1_penalty", "r2_penalty"):
        images = torch.rand(3, 4, requires_grad=True)
        kind = "real" if name == "r1_penalty" else "fake"
        given |= {f"{kind}_logits": images * 2, f"{kind}_images": images}
    if "path" in given:
        given["path"] = folder / "a.png"
    if name == "save_animation":
        plots.save_grid(IMAGES, folder / "a.png", value_range=(0, 1))
        given |= {"png_paths": [folder / "a.png"], "gif_path": folder / "a.gif"}
    return function(**given)


def test_every_function_that_takes_an_integer_is_here() -> None:
    assert functions().keys() == CALLS.keys()


@pytest.mark.parametrize(("name", "argument"), [*cases()])
def test_what_is_no_integer_is_refused(name: str, argument: str, tmp_path: Path) -> None:
    assert argument in CALLS[name]
    call(name, tmp_path)
    for wrong in NO_COUNTS:
        default = inspect.signature(functions()[name]).parameters[argument].default
        if wrong is None and default is None:
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^{argument} must .*got "):
            call(name, tmp_path, **{argument: wrong})
