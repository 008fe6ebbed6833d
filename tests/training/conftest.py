"""What several files of tests measure with: trained once."""

import pytest

from gankernels.training import data, evaluation


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def network(digits):
    return evaluation.train_feature_network(digits, seed=0, steps=80)
