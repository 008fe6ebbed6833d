"""What several files of tests measure with: trained once; and which of them draw."""

import pytest
from matplotlib.figure import Figure

from gankernels.training import data, evaluation


@pytest.fixture
def drawn():
    """Asked for by tests that look at pictures."""


@pytest.fixture(autouse=True)
def _pictures_are_blank(request, monkeypatch):
    """Most of a small run's time is drawing, and most runs here are for something else."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "draw", lambda *_: None)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def network(digits):
    return evaluation.train_feature_network(digits, seed=0, steps=80)
