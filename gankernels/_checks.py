"""Argument checks, one subject each. The C++ operators raise the same types with the same texts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REDUCTIONS = ("mean", "sum", "none")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the operators compute in and return a loss in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def check_divergence_reduction(reduction: str) -> None:
    """Losses with a class dimension have PyTorch's fourth one too."""
    if reduction not in (*REDUCTIONS, "batchmean"):
        raise ValueError(
            f"reduction must be 'mean', 'batchmean', 'sum' or 'none', got {reduction!r}"
        )


def check_objective(objective: int) -> None:
    if objective not in (1, 2, 3):
        raise ValueError(f"objective must be 1, 2 or 3, got {objective!r}")


def check_required(name: str, value: object, objective: int) -> None:
    if value is None:
        raise ValueError(f"{name} is required by objective {objective}, got None")


def check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= check_factor("label_smoothing", label_smoothing) < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}")


def check_label(name: str, label: float) -> None:
    """A target of binary cross-entropy."""
    if not 0 <= check_factor(name, label) <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {label!r}")


def check_targets(real_label: float, fake_label: float, label_smoothing: float) -> None:
    """Both targets, of the first of which there are two ways to say it."""
    check_label("real_label", real_label)
    check_label("fake_label", fake_label)
    check_label_smoothing(label_smoothing)
    if label_smoothing and real_label != 1:
        raise ValueError(
            f"label_smoothing must be 0 where real_label is given, got {label_smoothing!r} and "
            f"{real_label!r}"
        )


def check_tensor(name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a Tensor, got {type(x).__name__}")


def check_floating(name: str, x: Tensor) -> None:
    """A dense tensor of one of the four float dtypes that the operators compute in."""
    check_tensor(name, x)
    if x.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
    if x.layout != torch.strided or x.is_nested:
        found = "a nested tensor" if x.is_nested else f"layout {x.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {found}")


def check_dim(name: str, x: Tensor, dim: int) -> int:
    """Returns ``dim`` as a non-negative index."""
    check_integer("dim", dim)
    if x.ndim == 0:
        raise ValueError(f"{name} must have at least 1 dimension, got a 0-dim tensor")
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(
            f"dim must be in [{-x.ndim}, {x.ndim - 1}] for {name} with {x.ndim} dimensions, "
            f"got {dim}"
        )
    return dim % x.ndim


def check_logits(name: str, x: Tensor, dim: int) -> int:
    """A float tensor with at least one class along ``dim``; returns the non-negative ``dim``."""
    check_floating(name, x)
    index = check_dim(name, x, dim)
    if x.shape[index] == 0:
        raise ValueError(
            f"{name} must have at least one class along dim {dim}, got shape {list(x.shape)}"
        )
    return index


def check_target(name: str, target: Tensor, logits_name: str, logits: Tensor, dim: int) -> None:
    """A distribution over the classes: (K,), the logits' shape, or 1 in every non-class dim.

    ``dim`` is non-negative. The dtype is free: it is converted to the accumulation dtype.
    """
    check_floating(name, target)
    check_same_device(name, target, logits_name, logits)
    classes = logits.shape[dim]
    one_for_all_rows = [1] * logits.ndim
    one_for_all_rows[dim] = classes
    if list(target.shape) not in ([classes], list(logits.shape), one_for_all_rows):
        raise ValueError(
            f"{name} must have shape [{classes}] or {list(logits.shape)} to match {logits_name}, "
            f"got {list(target.shape)}"
        )


def check_same_device(a_name: str, a: Tensor, b_name: str, b: Tensor) -> None:
    if a.device != b.device:
        raise RuntimeError(
            f"{a_name} and {b_name} must be on the same device, got {a.device} and {b.device}"
        )


def check_same_dtype(a_name: str, a: Tensor, b_name: str, b: Tensor) -> None:
    if a.dtype != b.dtype:
        raise TypeError(
            f"{a_name} and {b_name} must have the same dtype, got {a.dtype} and {b.dtype}"
        )


def check_same_shape(a_name: str, a: Tensor, b_name: str, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"{a_name} and {b_name} must have the same shape, "
            f"got {list(a.shape)} and {list(b.shape)}"
        )


def check_same_ndim(a_name: str, a: Tensor, b_name: str, b: Tensor) -> None:
    if a.ndim != b.ndim:
        raise ValueError(
            f"{a_name} and {b_name} must have the same number of dimensions, "
            f"got {a.ndim} and {b.ndim}"
        )


def check_same_classes(a_name: str, a: Tensor, b_name: str, b: Tensor, dim: int) -> None:
    if a.shape[dim] != b.shape[dim]:
        raise ValueError(
            f"{a_name} and {b_name} must have the same number of classes along dim {dim}, "
            f"got {a.shape[dim]} and {b.shape[dim]}"
        )


def check_scale(scale: float | Tensor, x: Tensor) -> None:
    """A gradient factor: a number, a 0-dim tensor, or one entry per sample of ``x``."""
    if not isinstance(scale, Tensor):
        check_number("scale", scale, "a tensor")
        return
    if scale.ndim == 0:
        return
    check_floating("scale", scale)
    samples = list(x.shape[:1])
    if list(scale.shape) != samples:
        raise ValueError(f"scale must have shape [] or {samples}, got {list(scale.shape)}")


def check_number(name: str, value: object, otherwise: str) -> None:
    """A number, a symbolic one among them; ``otherwise`` says what else would have been taken."""
    if not isinstance(value, (int, float, np.number, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"{name} must be a number or {otherwise}, got {value!r}")


def check_factor(name: str, value: float) -> float:
    """A number that is known to the host: a tensor would have to be waited for."""
    if type(value) is float:
        return value
    if not isinstance(value, (int, float, np.number, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_integer(name: str, value: object, least: int | None = None, otherwise: str = "") -> int:
    """A count, a size or a dimension of 64 bits; ``otherwise`` says what else would have been taken."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{name} must be an integer{otherwise}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}{otherwise}, got {value!r}")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must be an integer from -2**63 to 2**63 - 1, got {value!r}")
    return value  # type: ignore[return-value]


def check_positive_number(name: str, value: float) -> float:
    """What logits are divided by, a width, a rate: finite and above 0."""
    number = value if type(value) is float else check_factor(name, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be finite and positive, got {value!r}")
    return number


def check_temperatures(both: float, of_p: float | None, of_q: float | None) -> tuple[float, float]:
    """One for both distributions, or one of its own for either."""
    if of_p is of_q is None:
        temperature = check_positive_number("temperature", both)
        return temperature, temperature
    p = both if of_p is None else check_positive_number("p_temperature", of_p)
    q = both if of_q is None else check_positive_number("q_temperature", of_q)
    return check_positive_number("temperature", p), check_positive_number("temperature", q)


def check_beta(beta: float) -> float:
    """The share of the first distribution in a mixture of two."""
    share = check_factor("beta", beta)
    if not 0 < share < 1:
        raise ValueError(f"beta must be in (0, 1), got {beta!r}")
    return share


def check_weight(name: str, x: object, *, mask: bool = False) -> None:
    """A tensor of factors, or one that says what counts."""
    check_tensor(name, x)
    assert isinstance(x, Tensor)
    if not mask:
        check_floating(name, x)
    elif x.dtype != torch.bool:
        raise TypeError(f"{name} must be a bool tensor, got {x.dtype}")


def check_of_rows(name: str, x: Tensor, rows: list[int], *, mask: bool = False) -> None:
    """A weight, or a mask, for each row: of the rows' shape or one entry per sample."""
    check_weight(name, x, mask=mask)
    if list(x.shape) not in (rows[:1], rows):
        expected = f"{rows[:1]} or {rows}" if len(rows) > 1 else f"{rows}"
        raise ValueError(f"{name} must have shape {expected}, got {list(x.shape)}")


def check_alpha(alpha: float | Tensor) -> float | Tensor:
    """A number, or a tensor with one element, which comes back without dimensions."""
    if not isinstance(alpha, Tensor):
        check_number("alpha", alpha, "a tensor with one element")
        return alpha
    if alpha.numel() != 1:
        raise ValueError(
            f"alpha must be a number or a tensor with one element, got shape {list(alpha.shape)}"
        )
    return alpha.reshape(())


def check_writable(name: str, x: Tensor) -> None:
    """May ``x`` be overwritten element by element, and does autograd allow it?"""
    if x.is_leaf and x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} must not be a leaf that requires grad, got one outside torch.no_grad()"
        )
    if _may_overlap(x):
        raise RuntimeError(
            f"{name} must not overlap itself in memory, "
            f"got shape {list(x.shape)} with strides {list(x.stride())}"
        )


def _may_overlap(x: Tensor) -> bool:
    # No element is shared when each stride steps over all that the smaller strides can reach.
    reach = 0
    dims = [(stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    for stride, size in sorted(dims):
        if stride <= reach:
            return x.numel() > 0
        reach += stride * (size - 1)
    return False


def check_statistics(name: str, x: Tensor, dim: int) -> int:
    """Mean and log-variance stacked along ``dim``; returns the non-negative ``dim``."""
    index = check_logits(name, x, dim)
    if x.shape[index] % 2:
        raise ValueError(
            f"{name} must have an even number of channels along dim {dim}, "
            f"got shape {list(x.shape)}"
        )
    return index


def check_one_logit_per_sample(name: str, x: Tensor) -> None:
    if x.ndim == 0 or x.numel() != x.shape[0]:
        raise ValueError(
            f"{name} must have one logit per sample, shape [N] or [N, 1, ...], got {list(x.shape)}"
        )


def check_noise(name: str, noise: Tensor, shape: list[int], like_name: str, like: Tensor) -> None:
    check_floating(name, noise)
    check_same_device(name, noise, like_name, like)
    if list(noise.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape} to match {like_name}, got {list(noise.shape)}"
        )


def check_anchor_values(name: str, anchor: Tensor) -> None:
    """Entries finite and not negative, some mass. Reads the values, so it waits for a GPU."""
    check_floating(name, anchor)
    lowest, highest = (float(value) for value in torch.aminmax(anchor.detach()))
    # aminmax propagates NaN.
    if not (abs(lowest) < float("inf") and abs(highest) < float("inf")):
        raise ValueError(f"{name} must be finite, got values in [{lowest}, {highest}]")
    if lowest < 0:
        raise ValueError(f"{name} must not be negative, got a minimum of {lowest}")
    if highest == 0:
        raise ValueError(f"{name} must have a positive entry, got 0 everywhere")
