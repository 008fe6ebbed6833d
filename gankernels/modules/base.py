"""What every loss module is: the calls of a functional loss for D and of one for G."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from gankernels import _checks as check
from gankernels._value_and_grad import value_and_grad


class Call(NamedTuple):
    """A functional loss and what to call it with; ``logits`` come first among its arguments."""

    function: Callable[..., Tensor]
    logits: tuple[Tensor | None, ...]
    constants: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})

    def loss(self) -> Tensor:
        return self.function(*self.logits, *self.constants, **self.options)

    def value_and_grad(self, grad_scale: float) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        # Only the package's own losses take grad_scale.
        scale = {} if grad_scale == 1 else {"grad_scale": grad_scale}
        return value_and_grad(self.function)(*self.logits, *self.constants, **self.options, **scale)


class GANLoss(nn.Module):
    """Base of the losses: what a training step may ask of any of them.

    A subclass says which functional loss serves each network (``_discriminator_call`` and
    ``_generator_call``); everything else is here. Logits are raw outputs of D, larger = more real,
    and always come as ``(real_logits, fake_logits)``.

    Args:
        reduction: ``"mean"`` (each batch by its own count), ``"sum"`` or ``"none"``.

    Raises:
        ValueError: unknown reduction.
    """

    generator_uses_real: bool = False
    """Whether the generator loss needs D's logits of real images; if not, a step can skip them."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check.check_reduction(reduction)
        self.reduction = reduction

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The loss that the discriminator minimises, differentiable any number of times."""
        return self._discriminator_call(real_logits, fake_logits).loss()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """The loss that the generator minimises, differentiable any number of times.

        ``real_logits`` may be ``None``, and is ignored, unless :attr:`generator_uses_real`.
        """
        return self._generator_call(real_logits, fake_logits).loss()

    def discriminator_value_and_grad(
        self, real_logits: Tensor, fake_logits: Tensor, grad_scale: float = 1.0
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """``(loss, (g_real, g_fake))`` without building a graph; see ``gankernels.value_and_grad``.

        If any of the logits requires grad, the gradient of those that do not is ``None``.
        ``grad_scale`` multiplies the gradients, not the loss.
        """
        call = self._discriminator_call(real_logits, fake_logits)
        loss, (g_real, g_fake) = call.value_and_grad(grad_scale)
        return loss, (g_real, g_fake)

    def generator_value_and_grad(
        self, real_logits: Tensor | None, fake_logits: Tensor, grad_scale: float = 1.0
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """``(loss, (g_real, g_fake))`` without building a graph; see ``gankernels.value_and_grad``.

        ``g_real`` is ``None`` where the loss does not use the real logits, or where they do not
        require grad and the fake logits do.
        """
        loss, grads = self._generator_call(real_logits, fake_logits).value_and_grad(grad_scale)
        # A loss of the fake logits alone has one gradient.
        g_real = grads[0] if len(grads) == 2 and self.generator_uses_real else None
        return loss, (g_real, grads[-1])

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> Call:
        raise TypeError(f"{type(self).__name__} must define _discriminator_call, got no definition")

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> Call:
        raise TypeError(f"{type(self).__name__} must define _generator_call, got no definition")
