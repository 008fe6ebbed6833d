"""The class of image-to-image code against its formulas, written out plainly in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels import compat

F64 = torch.float64
KINDS = ["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return (2 * x).requires_grad_()


def published(
    kind: str, x: Tensor, real: bool, is_disc: bool, labels: tuple[float, float], weight: float
) -> Tensor:
    label = torch.full_like(x, labels[0] if real else labels[1])
    if kind == "vanilla":
        loss = F.binary_cross_entropy_with_logits(x, label)
    elif kind == "lsgan":
        loss = F.mse_loss(x, label)
    elif kind == "wgan":
        loss = -x.mean() if real else x.mean()
    elif kind == "wgan_softplus":
        loss = F.softplus(-x if real else x).mean()
    elif is_disc:
        loss = F.relu(1 + (-x if real else x)).mean()
    else:
        loss = -x.mean()
    return loss if is_disc else loss * weight


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.2)])
@pytest.mark.parametrize("is_disc", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_published_one(
    kind: str, real: bool, is_disc: bool, labels: tuple[float, float]
) -> None:
    x, weight = draw(3, 1, 4, 4), 0.25
    got = compat.GANLoss(kind, *labels, weight)(x, real, is_disc)
    expected = published(kind, x, real, is_disc, labels, weight)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        torch.autograd.grad(got, x), torch.autograd.grad(expected, x), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("is_disc", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_averaged_or_summed_over_their_members(kind: str, is_disc: bool) -> None:
    outputs = [draw(2, 1, 4, 4), draw(2, 1, 2, 2, seed=1), draw(2, 1, seed=2)]
    maps = [[draw(2, 8, 4, 4, seed=9), x] for x in outputs]  # features first, the logits last
    each = [published(kind, x, True, is_disc, (1.0, 0.0), 0.5) for x in outputs]
    mean = compat.GANLoss(kind, loss_weight=0.5)
    total = compat.GANLoss(kind, loss_weight=0.5, average=False)
    for given in (outputs, tuple(outputs), maps):
        for loss, expected in ((mean, sum(each) / 3), (total, sum(each))):
            torch.testing.assert_close(loss(given, True, is_disc), expected, rtol=1e-12, atol=0)


def test_two_one_sided_calls_train_d() -> None:
    """Two backwards, as such code has them, leave the gradient of the joint loss."""
    weight = torch.ones(4, dtype=F64, requires_grad=True)
    real, fake = draw(8, 4).detach(), draw(8, 4, seed=1).detach()
    loss = compat.GANLoss("vanilla")
    loss(real @ weight, True, is_disc=True).backward()
    loss(fake @ weight, False, is_disc=True).backward()
    joint = F.softplus(-(real @ weight)).mean() + F.softplus(fake @ weight).mean()
    torch.testing.assert_close(weight.grad, torch.autograd.grad(joint, weight)[0])


def test_bad_arguments_are_refused_and_the_rest_is_shown() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of vanilla, lsgan, .* got 'gan'"):
        compat.GANLoss("gan")
    with pytest.raises(ValueError, match=r"real_label must be in \[0, 1\], got 1.2"):
        compat.GANLoss("vanilla", 1.2)
    compat.GANLoss("lsgan", 1.2)  # least squares have any label
    with pytest.raises(ValueError, match=r"fake_label must be in \[0, 1\], got -1"):
        compat.GANLoss("vanilla", 1.0, -1)
    assert repr(compat.GANLoss("hinge", loss_weight=0.1)) == (
        "GANLoss('hinge', real_label=1.0, fake_label=0.0, loss_weight=0.1, average=True)"
    )
    assert compat.GANLoss("wgan").state_dict() == {}
