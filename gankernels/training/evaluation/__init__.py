"""How good the samples are: distances between feature distributions, coverage, modes of a mixture.

Features come from a small classifier trained here on the same labelled data unless the caller
brings a network. Such distances rank runs on one data set with one feature network; they are not
FID, which is the name for Inception features only.
"""

from gankernels.training.evaluation.classifier import FeatureNetwork, train_feature_network
from gankernels.training.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from gankernels.training.evaluation.features import inception_features
from gankernels.training.evaluation.mixture import evaluate_mixture
from gankernels.training.evaluation.scores import evaluate_run, evaluate_samples

__all__ = [
    "FeatureNetwork",
    "evaluate_mixture",
    "evaluate_run",
    "evaluate_samples",
    "frechet_distance",
    "inception_features",
    "kernel_distance",
    "precision_recall",
    "train_feature_network",
]
