"""LeCam regularisation: D's outputs are held near where the other batch's outputs have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gankernels import _checks as check
from gankernels._scalar_call import Logits, check_lists, is_list, listed
from gankernels._uncompiled import uncompiled

__all__ = ["LeCamPenalty", "lecam_penalty"]


def lecam_penalty(
    real_logits: Logits,
    fake_logits: Logits,
    ema_real: float | Tensor,
    ema_fake: float | Tensor,
    *,
    average: bool = False,
) -> Tensor:
    r"""LeCam penalty of D's logits, given moving averages of both batches' logits.

    .. math::
        \mathbb{E}\,\max(0, r - \bar f)^2 + \mathbb{E}\,\max(0, \bar r - f)^2

    with the gradients :math:`2 \max(0, r - \bar f) / N_r` and :math:`-2 \max(0, \bar r - f) / N_f`. Real
    logits are pulled down to the fake average, fake ones up to the real average: D learns less of few
    images by heart. Add it to D's loss with a small weight. Of a list of discriminators it is the sum of each
    one's penalty.

    Args:
        real_logits: D's outputs for real images, any shape; or a list of tensors, one of each discriminator.
        fake_logits: For generated images, any shape; or a list as long.
        ema_real: Moving average of the real logits, a constant: a number or a 0-dim tensor; for a list a 1-dim
            tensor, one average of each discriminator.
        ema_fake: Of the fake logits.
        average: Divide the sum over a list of discriminators by their number.

    Returns:
        0-dim; float32, or float64 where one of the logits is. Any order of derivative with respect to
        the logits.

    Raises:
        TypeError: logits that are not float tensors, or an average that is no number.
        ValueError: lists of different length, or averages of another number than the logits.
        RuntimeError: two devices.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data"; the
    maxima are those of the authors' code (github.com/google/lecam-gan).

    Example:
        >>> lecam_penalty(torch.tensor([1.0, 3.0]), torch.tensor([-1.0]), 2.0, -1.0)  # (4 + 16) / 2 + 9
        tensor(19.)
    """
    pairs = _pairs(real_logits, fake_logits)
    count = len(pairs) if is_list(real_logits) else None
    means = _averages("ema_real", ema_real, count), _averages("ema_fake", ema_fake, count)
    penalties = []
    for (real, fake), mean_real, mean_fake in zip(pairs, *means, strict=True):
        above = _accumulated(real) - mean_fake
        below = mean_real - _accumulated(fake)
        penalties.append(above.relu().square().mean() + below.relu().square().mean())
    total = sum(penalties[1:], penalties[0])
    return total / len(pairs) if average else total


class LeCamPenalty(nn.Module):
    r"""LeCam penalty with its two moving averages; see :func:`gankernels.lecam_penalty`.

    Each call in training mode first takes the means of its logits into the averages,
    :math:`\bar r \leftarrow d\,\bar r + (1 - d)\,\mathrm{mean}(r)`, as the authors' code does; the first
    call's means begin them. In evaluation mode the averages stay. They are buffers: saved in
    ``state_dict``, and updated without waiting for a GPU. Under several processes each has its own. The update
    breaks the graph of ``torch.compile``.

    Args:
        decay: ``d`` in [0, 1); 0.99 in the authors' code.
        discriminators: Of how many the logits come, as lists, each with averages of its own; None: of one, as a
            tensor.
        average: Divide the sum over the discriminators by their number.

    Raises:
        TypeError: a ``decay`` that is no number, or ``discriminators`` that is no int.
        ValueError: a ``decay`` outside [0, 1), no discriminator, or logits of another number of them.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data".

    Example:
        >>> penalty = LeCamPenalty(decay=0.5)
        >>> penalty(torch.tensor([1.0, 3.0]), torch.tensor([-1.0]))  # averages 2 and -1
        tensor(19.)
        >>> _ = penalty(torch.tensor([4.0]), torch.tensor([-3.0]))
        >>> penalty.ema_real, penalty.ema_fake
        (tensor(3.), tensor(-2.))
        >>> penalty = LeCamPenalty(discriminators=2)
        >>> penalty([torch.ones(3), torch.zeros(5, 1)], [torch.zeros(3), torch.zeros(5, 1)])  # (1 + 1) + (0 + 0)
        tensor(2.)
    """

    ema_real: Tensor
    ema_fake: Tensor
    updates: Tensor

    def __init__(
        self, decay: float = 0.99, discriminators: int | None = None, average: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= check.check_factor("decay", decay) < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay!r}")
        if discriminators is not None:
            check.check_integer("discriminators", discriminators, 1, " or None")
        self.decay, self.discriminators, self.average = decay, discriminators, average
        shape = () if discriminators is None else (discriminators,)
        self.register_buffer("ema_real", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("ema_fake", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        if self.training:
            self.update(real_logits, fake_logits)
        return lecam_penalty(
            real_logits, fake_logits, self.ema_real, self.ema_fake, average=self.average
        )

    # A compiled backward pass would take the batch in once more.
    @uncompiled
    @torch.no_grad()
    def update(self, real_logits: Logits, fake_logits: Logits) -> None:
        """Takes the means of D's logits into the averages."""
        pairs = _pairs(real_logits, fake_logits)
        count = len(pairs) if is_list(real_logits) else None
        if count != self.discriminators:
            expected = (
                "a tensor" if self.discriminators is None else f"a list of {self.discriminators}"
            )
            raise ValueError(
                f"real_logits must be {expected}, got {'a tensor' if count is None else count}"
            )
        dtype = self.ema_real.dtype
        share = torch.full_like(self.ema_real, 1.0 - self.decay).masked_fill_(
            self.updates == 0, 1.0
        )
        for side, average in enumerate((self.ema_real, self.ema_fake)):
            means = torch.stack([pair[side].mean(dtype=dtype) for pair in pairs])
            average.lerp_(means.view_as(average), share)
        self.updates += 1

    def extra_repr(self) -> str:
        several = f", discriminators={self.discriminators}, average={self.average}"
        return f"decay={self.decay}" + (several if self.discriminators is not None else "")

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


def _pairs(real_logits: Logits, fake_logits: Logits) -> list[tuple[Tensor, Tensor]]:
    """Real and fake logits of every discriminator."""
    reals, fakes = listed("real_logits", real_logits), listed("fake_logits", fake_logits)
    check_lists(real_logits, fake_logits)
    for real, fake in zip(reals, fakes, strict=True):
        check.check_floating(*real)
        check.check_floating(*fake)
        check.check_same_device(*real, *fake)
    return [(real, fake) for (_, real), (_, fake) in zip(reals, fakes, strict=True)]


def _averages(name: str, given: Any, count: int | None) -> list[float | Tensor]:
    """The average of each of ``count`` discriminators; None: of one that is not in a list."""
    if not isinstance(given, Tensor):
        check.check_number(name, given, "a tensor of one average for each discriminator")
    elif given.shape not in ((), (count,)):
        otherwise = "" if count is None else f" or a tensor of {count}"
        raise ValueError(f"{name} must be a number{otherwise}, got {list(given.shape)}")
    if isinstance(given, Tensor) and given.ndim == 1:
        return list(given.unbind())
    return [given] * (count or 1)
