"""Training GANs: steps without waste, recipes, a loop that survives being killed."""

from gankernels.training.config import StepConfig, TrainConfig
from gankernels.training.data import BatchStream, ImageData
from gankernels.training.graphs import GraphedStep
from gankernels.training.interruption import LostProcessError
from gankernels.training.loop import RunInterruptedError, Trainer, load_generator, train
from gankernels.training.losses import FunctionLoss
from gankernels.training.metrics import NonFiniteError
from gankernels.training.players import Players
from gankernels.training.recipes import RECIPES, Recipe, configuration, register
from gankernels.training.steps import (
    alternating_step,
    one_pass_step,
    ratio_step,
    reversal_step,
)

__all__ = [
    "RECIPES",
    "BatchStream",
    "FunctionLoss",
    "GraphedStep",
    "ImageData",
    "LostProcessError",
    "NonFiniteError",
    "Players",
    "Recipe",
    "RunInterruptedError",
    "StepConfig",
    "TrainConfig",
    "Trainer",
    "alternating_step",
    "configuration",
    "load_generator",
    "one_pass_step",
    "ratio_step",
    "register",
    "reversal_step",
    "train",
]
