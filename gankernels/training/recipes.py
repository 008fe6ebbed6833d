"""The recipes: what the three articles and the paper's toy experiment train, as configurations.

A recipe is a name, a line of text and a few presets; a preset is a :class:`TrainConfig`. Presets
called ``article`` have the settings of the source; where those do not lead to good pictures within
minutes on a CPU, the default is ``quick`` (same losses, same step) and its text says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gankernels.training import options
from gankernels.training.config import StepConfig, TrainConfig
from gankernels.training.parts import VALUE_RANGES, check_network

__all__ = ["RECIPES", "Recipe", "configuration", "register"]


@dataclass(frozen=True)
class Recipe:
    """A named family of configurations.

    Args:
        name: What ``train NAME`` calls it.
        summary: One line for ``--help``.
        presets: Configurations by name; the first is the default.
        notes: One line per preset.
    """

    name: str
    summary: str
    presets: dict[str, TrainConfig]
    notes: dict[str, str]


RECIPES: dict[str, Recipe] = {}


def register(recipe: Recipe) -> Recipe:
    """Make a recipe known to :func:`configuration` and the command line."""
    if set(recipe.notes) != set(recipe.presets):
        raise ValueError(f"recipe {recipe.name!r}: every preset needs a note, and only those")
    RECIPES[recipe.name] = recipe
    return recipe


def configuration(
    recipe: str = "realness", preset: str | None = None, **changes: Any
) -> TrainConfig:
    """The configuration of a recipe's preset with some values changed.

    Args:
        recipe: Name of the recipe.
        preset: Name of its preset; None takes its default.
        **changes: Fields of :class:`TrainConfig` or :class:`StepConfig`. Another ``network`` or
            ``loss`` leaves the preset's options for its own behind, and brings its value range.

    Raises:
        ValueError: A name is unknown, or a change would have no effect.

    Example:
        >>> configuration("dcgan", steps=10).steps
        10
    """
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; expected one of {', '.join(RECIPES)}")
    presets = RECIPES[recipe].presets
    preset = preset or next(iter(presets))
    if preset not in presets:
        raise ValueError(
            f"recipe {recipe!r} has no preset {preset!r}; expected one of {', '.join(presets)}"
        )
    base = presets[preset].but(recipe=recipe, preset=preset)
    network = changes.get("network", base.network)
    if network != base.network and VALUE_RANGES.get(network) is not None:
        base = base.but(value_range=VALUE_RANGES[network])
    config = options.settled(base, changes)
    if "network" in changes:
        check_network(config)
    return config


def _preset(network: str, **fields: Any) -> TrainConfig:
    """A configuration with the value range of its network; what is not given is :class:`TrainConfig`'s."""
    made = VALUE_RANGES[network]
    config = TrainConfig(network=network, **fields)
    return config if made is None else config.but(value_range=made)


_REALNESS_ARTICLE = _preset(
    "realness_article",
    channels=3,
    flip=True,
    loss_options={"objective": 2, "anchors": "article"},
    steps=39_000,
    sample_every=1_000,
    checkpoint_every=1_000,
)

register(
    Recipe(
        "realness",
        "RealnessGAN: the discriminator gives a distribution over outcomes (third article)",
        {
            "quick": _REALNESS_ARTICLE.but(
                channels=1,
                flip=False,
                g_lr=2e-3,
                d_lr=2e-3,
                decay=0.5,
                ema=0.99,
                steps=1_200,
                sample_every=100,
                checkpoint_every=200,
            ),
            "article": _REALNESS_ARTICLE,
            "strong": _preset(
                "dcgan_spectral",
                network_options={"width": 32},
                channels=1,
                outcomes=51,
                loss_options={"objective": 2, "anchors": "skewed"},
                noise_dim=128,
                g_lr=2e-4,
                d_lr=2e-4,
                beta1=0.0,
                beta2=0.999,
                ema=0.995,
                steps=1_500,
            ),
        },
        {
            "quick": "the article's networks, losses and step; grey digits without flips, learning "
            "rate 2e-3 falling to zero in the second half, EMA, 1,200 steps",
            "article": "the article's settings: colour, flips, learning rate 1e-4, 100 epochs of "
            "CIFAR-10's length (--data cifar10:DIR for its data)",
            "strong": "the paper's form: DCGAN, spectral norm in D, feature resampling, skewed "
            "anchors, 51 outcomes, EMA",
        },
    )
)

_DCGAN = _preset(
    "dcgan_small",
    image_size=28,
    channels=1,
    loss="logistic",
    step=StepConfig(order="g_first", fake_first=True),
    g_lr=2e-4,
    d_lr=2e-4,
    beta1=0.5,
    beta2=0.9,
    steps=1_500,
)

register(
    Recipe(
        "dcgan",
        "DCGAN with the logistic loss, generator first (second article)",
        {
            "quick": _DCGAN.but(
                g_lr=1e-3,
                d_lr=1e-3,
                r1_gamma=2.0,
                r1_every=4,
                decay=0.5,
                ema=0.998,
                steps=2_500,
                sample_every=250,
                checkpoint_every=500,
            ),
            "plain": _DCGAN,
            "one_pass": _DCGAN.but(step_kind="one_pass"),
            "ratio": _DCGAN.but(step_kind="ratio", network_options={"d_batch_norm": False}),
            "r3gan": _DCGAN.but(
                loss="pairing",
                network_options={"d_batch_norm": False},
                r1_gamma=1.0,
                r2_gamma=1.0,
                r1_every=1,
                g_lr=1e-3,
                d_lr=1e-3,
                beta1=0.0,
                beta2=0.99,
                decay=0.5,
                ema=0.99,
                steps=800,
                sample_every=100,
                checkpoint_every=200,
            ),
            "article": _DCGAN.but(network="dcgan_article", image_size=32, steps=4_690),
        },
        {
            "quick": "7-14-28 generator, one BatchNorm in D: the form that gives all ten digits; "
            "for 1,797 of them, which D learns by heart, learning rate 1e-3 falling to zero in the "
            "second half, R1 penalty at every fourth step, EMA, 2,500 steps",
            "plain": "the same networks at the article's learning rate 2e-4 without penalty: enough "
            "for 10,000 digits and more (--data mnist:DIR)",
            "one_pass": "plain, with exact simultaneous updates from one forward pass",
            "ratio": "no normalisation in D, both updates from one forward and one backward pass",
            "r3gan": "relativistic pairing loss with R1 and R2 at every step and nothing else that steadies "
            "D: no normalisation, no smoothed labels (Huang et al. 2024); EMA, 800 steps",
            "article": "the article's blocks taken literally, 1-2-...-32 pixels with BatchNorm "
            "throughout, ten epochs of 60,000 digits; collapses on small data",
        },
    )
)

register(
    Recipe(
        "grl",
        "one optimizer for both networks through gradient reversal (first article)",
        {
            "quick": _preset(
                "grl_mlp",
                image_size=28,
                loss="minimax",
                step_kind="reversal",
                step=StepConfig(fake_first=True),
                noise="uniform",
                g_lr=2e-4,
                d_lr=2e-4,
                beta1=0.5,
                beta2=0.9,
                shared_optimizer=True,
                ema=0.999,
                steps=12_000,
                log_every=100,
                sample_every=1_000,
                checkpoint_every=2_000,
            ),
        },
        {
            "quick": "perceptrons, BatchNorm in G, dropout in D, Adam 2e-4 (0.5, 0.9), EMA, "
            "12,000 steps"
        },
    )
)

_TOY = _preset(
    "toy_mlp",
    data="gaussians",
    image_size=None,
    channels=None,
    loss="realness",
    loss_options={"objective": 2, "anchors": "skewed"},
    outcomes=5,
    step=StepConfig(g_updates=3),
    batch_size=100,
    noise_dim=128,
    g_lr=1e-4,
    d_lr=1e-4,
    beta1=0.8,
    beta2=0.999,
    steps=2_000,
    log_every=50,
    sample_every=100,
    checkpoint_every=500,
    samples=2_000,
)

_TOY_PENALISED = _TOY.but(
    g_updates=1,
    r1_gamma=0.1,
    r2_gamma=0.1,
    r1_every=1,
    g_lr=1e-2,
    d_lr=4e-3,
    beta1=0.5,
    beta2=0.99,
    decay=1.0,
    ema=0.99,
)

register(
    Recipe(
        "toy",
        "the paper's 3x3 mixture of Gaussians with perceptrons",
        {
            "pairing": _TOY_PENALISED.but(
                loss="pairing", loss_options={}, r1_every=8, batch_size=200, steps=3_600
            ),
            "realness": _TOY_PENALISED.but(r1_gamma=0.5, r2_gamma=0.5, d_lr=3e-3, steps=4_500),
            "article": _TOY.but(loss_options={**_TOY.loss_options, "redraw": True}),
            "standard": _TOY.but(loss="logistic", loss_options={}),
            "standard_1": _TOY.but(loss="logistic", loss_options={}, g_updates=1),
        },
        {
            "pairing": "relativistic pairing loss with R1 and R2 at every eighth step, batch 200, learning "
            "rates 1e-2 and 4e-3 that fall to zero, EMA, 3,600 steps",
            "realness": "the realness loss of five outcomes with five times the penalties, batch 100, "
            "learning rates 1e-2 and 3e-3, 4,500 steps",
            "article": "the authors' settings: five outcomes, anchors drawn anew at every step, three generator "
            "updates per discriminator update, learning rate 1e-4, no penalty",
            "standard": "the logistic GAN with three generator updates",
            "standard_1": "the logistic GAN with one generator update",
        },
    )
)
