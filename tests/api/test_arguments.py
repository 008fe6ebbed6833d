"""Every argument of the public interface that is a number, and every keyword: what is none is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gankernels as gk
from gankernels import functional, reference
from gankernels._scalar import SCALAR_LOSSES
from gankernels._scalar_call import OPTIONS

Z, A = torch.zeros(6, 1), torch.ones(1)
GIVEN: dict[str, Any] = {
    **dict.fromkeys(["real_logits", "fake_logits", "logits", "p_logits", "q_logits", "x"], Z),
    **dict.fromkeys(["target", "real_anchor", "fake_anchor"], A),
    **dict.fromkeys(["real_features", "fake_features"], (Z,)),
    **dict.fromkeys(["real_statistics", "fake_statistics", "statistics"], torch.ones(6, 2)),
    **dict.fromkeys(["real_noise", "fake_noise", "noise"], Z),
    **dict.fromkeys(["images", "real_images", "fake_images"], Z),
    **dict.fromkeys(["ema_real", "ema_fake"], 0.0),
    "discriminator": lambda images: images.sum(1),
    "kind": "lsgan",
    "outcomes": 1,
}


def callables() -> dict[str, Callable[..., Any]]:
    """The public functions, their references, their values with gradients, and the modules."""
    found = {}
    for name in gk.__all__:
        member = getattr(gk, name)
        if inspect.isclass(member) and issubclass(member, nn.Module):
            found[name] = member
        if not inspect.isfunction(member):
            continue
        found[name] = member
        if hasattr(functional, name) and hasattr(reference, name):
            found[f"reference.{name}"] = getattr(reference, name)
        if name in SCALAR_LOSSES or name in ("softmax_kl", "softmax_kl_logits", "js_divergence"):
            found[f"value_and_grad({name})"] = gk.value_and_grad(member)
    return found


CALLABLES = callables()


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Of a callable; a reference and a value with gradients take what the function takes."""
    public = name.removeprefix("reference.").removeprefix("value_and_grad(").removesuffix(")")
    return dict(inspect.signature(getattr(gk, public)).parameters)


def numbers() -> Iterator[tuple[str, str, str]]:
    for name in CALLABLES:
        for parameter in parameters(name).values():
            annotation = str(parameter.annotation)
            if "float" in annotation:
                yield name, parameter.name, annotation


NUMBERS = list(numbers())
NO_NUMBERS: dict[str, Any] = {
    "text": "2",
    "list": [1.0],
    "tensor": torch.tensor(0.5, requires_grad=True),
    "None": None,
}


def required(name: str) -> dict[str, Any]:
    given = parameters(name).values()
    return {p.name: GIVEN[p.name] for p in given if p.default is p.empty and p.name in GIVEN}


@pytest.mark.parametrize(
    ("name", "argument", "annotation"), NUMBERS, ids=[f"{n}-{a}" for n, a, _ in NUMBERS]
)
def test_what_is_no_number_is_refused_by_name(name: str, argument: str, annotation: str) -> None:
    for form, value in NO_NUMBERS.items():
        if (form == "tensor" and "Tensor" in annotation) or (
            form == "None" and "None" in annotation
        ):
            continue
        for more in ({}, {"average": True} if "average" in parameters(name) else {}):
            with pytest.raises((TypeError, ValueError)) as caught:
                CALLABLES[name](**required(name) | {argument: value} | more)
            assert str(caught.value).startswith(f"{argument} must be"), form


def test_the_numbers_are_found() -> None:
    """Among them those that the losses of one logit read as labels, and a factor of every loss."""
    for name in ("lsgan_d_loss", "reference.lsgan_d_loss", "value_and_grad(lsgan_d_loss)"):
        assert {a for n, a, _ in NUMBERS if n == name} == {"real_label", "fake_label", "scale"}
    assert {n for n, a, _ in NUMBERS if a == "scale"} >= {*SCALAR_LOSSES, "realness_d_loss"}


# --- keywords ------------------------------------------------------------------------------------

KEYWORDS = sorted(set().union(*OPTIONS.values()) | {"label_smoothing", "unheard_of"})


@pytest.mark.parametrize("name", SCALAR_LOSSES)
def test_a_row_takes_what_its_function_takes(name: str) -> None:
    taken = inspect.signature(getattr(functional, name)).parameters.keys()
    assert OPTIONS[name] == taken - {*SCALAR_LOSSES[name].arguments, "reduction", "label_smoothing"}


def forms(name: str) -> list[Callable[..., Any]]:
    function = getattr(functional, name)
    return [function, getattr(reference, name), gk.value_and_grad(function)]


@pytest.mark.parametrize("name", SCALAR_LOSSES)
def test_a_keyword_that_a_loss_has_not_is_refused(name: str) -> None:
    given = required(name)
    for keyword in KEYWORDS:
        if keyword in parameters(name):
            continue
        for form in forms(name):
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{keyword}'"):
                form(**given, **{keyword: 1.0})


@pytest.mark.parametrize("name", SCALAR_LOSSES)
def test_missing_and_repeated_arguments_are_refused(name: str) -> None:
    given: list[Tensor] = list(required(name).values())
    last = SCALAR_LOSSES[name].arguments[-1]
    for form in forms(name):
        with pytest.raises(TypeError, match=f"missing .* argument: '{last}'"):
            form(*given[:-1])
        with pytest.raises(TypeError, match=f"multiple values for argument '{last}'"):
            form(*given, **{last: Z})
        with pytest.raises(TypeError, match=r"takes .* positional arguments"):
            form(*given, "mean", 0.0, 1.0)
