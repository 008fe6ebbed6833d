"""LeCam regularisation: D's outputs are held near where the other batch's outputs have been."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gankernels import _checks as check
from gankernels._uncompiled import uncompiled

__all__ = ["LeCamPenalty", "lecam_penalty"]


def lecam_penalty(
    real_logits: Tensor,
    fake_logits: Tensor,
    ema_real: float | Tensor,
    ema_fake: float | Tensor,
) -> Tensor:
    r"""LeCam penalty of D's logits, given moving averages of both batches' logits.

    .. math::
        \mathbb{E}\,\max(0, r - \bar f)^2 + \mathbb{E}\,\max(0, \bar r - f)^2

    with the gradients :math:`2 \max(0, r - \bar f) / N_r` and :math:`-2 \max(0, \bar r - f) / N_f`. Real
    logits are pulled down to the fake average, fake ones up to the real average: D learns less of few
    images by heart. Add it to D's loss with a small weight.

    Args:
        real_logits: D's outputs for real images, any shape.
        fake_logits: For generated images, any shape.
        ema_real: Moving average of the real logits: a number or a 0-dim tensor, a constant.
        ema_fake: Of the fake logits.

    Returns:
        0-dim; float32, or float64 where one of the logits is. Any order of derivative with respect to
        the logits.

    Raises:
        TypeError: logits that are not float tensors, or an average that is no number.
        ValueError: an average with dimensions.
        RuntimeError: two devices.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data"; the
    maxima are those of the authors' code (github.com/google/lecam-gan).

    Example:
        >>> lecam_penalty(torch.tensor([1.0, 3.0]), torch.tensor([-1.0]), 2.0, -1.0)  # (4 + 16) / 2 + 9
        tensor(19.)
    """
    check.check_floating("real_logits", real_logits)
    check.check_floating("fake_logits", fake_logits)
    check.check_same_device("real_logits", real_logits, "fake_logits", fake_logits)
    above = _accumulated(real_logits) - _average("ema_fake", ema_fake)
    below = _average("ema_real", ema_real) - _accumulated(fake_logits)
    return above.relu().square().mean() + below.relu().square().mean()


class LeCamPenalty(nn.Module):
    r"""LeCam penalty with its two moving averages; see :func:`gankernels.lecam_penalty`.

    Each call in training mode first takes the means of its logits into the averages,
    :math:`\bar r \leftarrow d\,\bar r + (1 - d)\,\mathrm{mean}(r)`, as the authors' code does; the first
    call's means begin them. In evaluation mode the averages stay. They are buffers: saved in
    ``state_dict``, and updated without waiting for a GPU. Under several processes each has its own. The update
    breaks the graph of ``torch.compile``.

    Args:
        decay: ``d`` in [0, 1); 0.99 in the authors' code.

    Raises:
        TypeError: a ``decay`` that is no number.
        ValueError: one outside [0, 1).

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data".

    Example:
        >>> penalty = LeCamPenalty(decay=0.5)
        >>> penalty(torch.tensor([1.0, 3.0]), torch.tensor([-1.0]))  # averages 2 and -1
        tensor(19.)
        >>> _ = penalty(torch.tensor([4.0]), torch.tensor([-3.0]))
        >>> penalty.ema_real, penalty.ema_fake
        (tensor(3.), tensor(-2.))
    """

    ema_real: Tensor
    ema_fake: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= check.check_factor("decay", decay) < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay!r}")
        self.decay = decay
        self.register_buffer("ema_real", torch.zeros((), dtype=torch.float32))
        self.register_buffer("ema_fake", torch.zeros((), dtype=torch.float32))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        if self.training:
            self.update(real_logits, fake_logits)
        return lecam_penalty(real_logits, fake_logits, self.ema_real, self.ema_fake)

    # A compiled backward pass would take the batch in once more.
    @uncompiled
    @torch.no_grad()
    def update(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Takes the means of D's logits into the averages."""
        check.check_floating("real_logits", real_logits)
        check.check_floating("fake_logits", fake_logits)
        dtype = self.ema_real.dtype
        share = torch.full_like(self.ema_real, 1.0 - self.decay).masked_fill_(
            self.updates == 0, 1.0
        )
        self.ema_real.lerp_(real_logits.mean(dtype=dtype), share)
        self.ema_fake.lerp_(fake_logits.mean(dtype=dtype), share)
        self.updates += 1

    def extra_repr(self) -> str:
        return f"decay={self.decay}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LeCamPenalty:
        # A hundredth of a mean is lost in a 16-bit average: through .half() both stay as they are.
        before = {name: getattr(self, name) for name in ("ema_real", "ema_fake")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, average in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, average.to(moved.device))
        return self


def _accumulated(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _average(name: str, value: float | Tensor) -> float | Tensor:
    if not isinstance(value, Tensor):
        check.check_number(name, value, "a 0-dim tensor")
    elif value.ndim:
        raise ValueError(f"{name} must be a number or a 0-dim tensor, got {list(value.shape)}")
    return value
