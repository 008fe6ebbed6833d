"""Every field of a configuration refuses what is not of its type, by name."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

import pytest

from gankernels.training import StepConfig, TrainConfig

OTHERS: dict[str, list[Any]] = {
    "bool": [None, 0, 1.0, "False", []],
    "int": [None, True, 1.5, "3", [1], float("nan"), float("inf"), 10**30],
    "int | None": [False, 1.5, "3", [1], float("nan"), -(10**30)],
    "float": [None, True, "0.1", [0.1], float("nan"), float("inf"), -float("inf")],
    "float | None": [True, "0.1", [0.1], float("nan"), float("inf")],
    "str": [None, 3, ["digits"], b"digits"],
    "str | None": [3, ["bf16"]],
    "tuple[float, float]": [None, 1.0, (0.0,), (0.0, 1.0, 2.0), ("0", "1"), (0.0, float("inf")), "01"],
    "dict[str, Any]": [None, 3, "width", [("width", 8)]],
    "StepConfig": [None, {"clip": 1.0}, 3, StepConfig],
}  # fmt: skip
FIELDS = [(owner, f) for owner in (TrainConfig, StepConfig) for f in fields(owner)]


@pytest.mark.parametrize(("owner", "field"), FIELDS, ids=lambda x: getattr(x, "name", None))
def test_another_type_is_refused(owner: type[Any], field: Field[Any]) -> None:
    for value in OTHERS[str(field.type)]:
        with pytest.raises((TypeError, ValueError), match=f"^{field.name} must .*got "):
            owner(**{field.name: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("g_lr", -1e-4, "g_lr must be at least 0, got -0.0001"),
        ("d_lr", -1, "d_lr must be at least 0, got -1"),
        ("beta1", 1.0, r"beta1 must lie in \[0, 1\), got 1.0"),
        ("beta2", -0.1, r"beta2 must lie in \[0, 1\), got -0.1"),
        ("image_size", 0, "image_size must be at least 1, got 0"),
        ("channels", -3, "channels must be at least 1, got -3"),
        ("value_range", (1.0, -1.0), "value_range must be .*, got 1.0, -1.0"),
        ("seed", 2**63, "seed must be an integer from"),
        ("ema", 1.5, r"ema must lie in \[0, 1\], got 1.5"),
    ],
)
def test_a_number_out_of_range_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{field: value})


def test_integers_are_numbers() -> None:
    assert TrainConfig(g_lr=1, value_range=(0, 1), step=StepConfig(clip=2)).step.clip == 2
