"""RealnessGAN's losses as a module, which holds the anchors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels import functional as F
from gankernels.modules.base import Call, GANLoss


class RealnessLoss(GANLoss):
    r"""RealnessGAN: D gives a distribution over realness and is trained towards two anchors.

    .. math::
        L_D = \mathrm{KL}(A_1 \| p) + \mathrm{KL}(A_0 \| q), \quad
        p = \mathrm{softmax}(real), \; q = \mathrm{softmax}(fake)

    with the generator's objective 1: :math:`-\mathrm{KL}(A_0 \| q)`,
    2: :math:`\mathrm{KL}(p \| q) - \mathrm{KL}(A_0 \| q)`,
    3: :math:`\mathrm{KL}(A_1 \| q) - \mathrm{KL}(A_0 \| q)`
    (Xiangli et al. 2020, equations 3 and 18 to 20; 2 is the paper's choice).

    The anchors are buffers: they are saved with the module and move with ``.to(device)``. They
    keep at least float32 through ``.half()``, ``.bfloat16()`` and ``.to(dtype)``: rounding the
    target changes the loss that is minimised, and the kernels compute in float32 whatever the
    logits' dtype.

    Args:
        real_anchor: ``A1``, ``(K,)`` or one distribution per row; copied, at least float32.
        fake_anchor: ``A0``, likewise.
        objective: The generator's objective, 1, 2 or 3.
        dim: The class dimension of the logits. Of ``(B, S, V)`` the default is the sequence: the vocabulary
            is ``dim=-1``.
        reduction: ``"mean"``, ``"batchmean"``, ``"sum"`` or ``"none"``.
        validate: Check the anchors' values once, here.
        scale: A factor on both losses and their gradients.
        draw: ``draw()`` gives another ``(real_anchor, fake_anchor)``, which :meth:`redraw` puts in place.

    Raises:
        TypeError: an anchor that is not a float tensor, a factor that is not a number, a ``draw`` that
            cannot be called.
        ValueError: an anchor with a negative, NaN or infinite entry or with no mass (if
            ``validate``), two vectors of different length, unknown objective or reduction.

    Example:
        >>> anchors = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> loss = RealnessLoss(*anchors)
        >>> loss.discriminator(torch.zeros(8, 2), torch.zeros(8, 2))  # 2 log 2
        tensor(1.3863)
        >>> logits = torch.zeros(1, 2)
        >>> value, (g_real, g_fake) = loss.generator_value_and_grad(logits, logits)
        >>> g_fake  # A0 - p
        tensor([[ 0.5000, -0.5000]])
        >>> loss.generator_uses_real, RealnessLoss(*anchors, objective=1).generator_uses_real
        (True, False)
        >>> sequences = torch.zeros(4, 7, 2)  # (B, S, V): one distribution per position
        >>> RealnessLoss(*anchors, dim=-1, reduction="none").discriminator(sequences, sequences).shape
        torch.Size([4, 7])
    """

    real_anchor: Tensor
    fake_anchor: Tensor

    def __init__(
        self,
        real_anchor: Tensor,
        fake_anchor: Tensor,
        objective: int = 2,
        dim: int = 1,
        reduction: str = "mean",
        validate: bool = True,
        *,
        scale: float = 1.0,
        draw: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if draw is not None and not callable(draw):
            raise TypeError(f"draw must be a function without arguments, got {type(draw).__name__}")
        check.check_divergence_reduction(reduction)
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.scale = check.check_factor("scale", scale)
        check.check_objective(check.check_integer("objective", objective))
        check.check_integer("dim", dim)
        for name, anchor in (("real_anchor", real_anchor), ("fake_anchor", fake_anchor)):
            check.check_floating(name, anchor)
            if validate:
                check.check_anchor_values(name, anchor)
            dtype = torch.promote_types(anchor.dtype, torch.float32)
            self.register_buffer(name, anchor.detach().to(dtype, copy=True))
        if real_anchor.ndim == fake_anchor.ndim == 1:
            check.check_same_shape("real_anchor", real_anchor, "fake_anchor", fake_anchor)
        self.objective = objective
        self.dim = dim
        self.draw = draw

    def redraw(self) -> None:
        """Draw the anchors anew, in place: once per step, before it, as the authors' code does.

        The anchors of :func:`gankernels.anchors.article` and ``official`` are histograms of 1,000 draws,
        and github.com/kam1107/RealnessGAN (``train_toy.py``) draws them at every iteration, one pair for
        both networks. A CUDA graph reads what is in the buffers when it is replayed, so a loop of
        replays calls this between them, never within the capture.

        Raises:
            RuntimeError: the loss was made without ``draw``.
            TypeError: ``draw`` returned something else than two float tensors.
            ValueError: it returned another shape than that of the anchors in place.

        Example:
            >>> import gankernels as gk
            >>> draw = lambda: gk.anchors.official(5)
            >>> loss = RealnessLoss(*draw(), draw=draw)
            >>> before = loss.real_anchor.clone()
            >>> loss.redraw()
            >>> bool((loss.real_anchor == before).all())
            False
        """
        if self.draw is None:
            raise RuntimeError("redraw needs RealnessLoss(..., draw=...), got a loss without draw")
        drawn = dict(zip(("real_anchor", "fake_anchor"), self.draw(), strict=True))
        for name, anchor in drawn.items():
            check.check_floating(f"{name} of draw()", anchor)
            check.check_same_shape(name, getattr(self, name), f"{name} of draw()", anchor)
        for name, anchor in drawn.items():
            getattr(self, name).copy_(anchor)

    @property
    def generator_uses_real(self) -> bool:  # type: ignore[override]
        """Objective 2 compares the fake images' distribution with the real images'."""
        return self.objective == 2

    def extra_repr(self) -> str:
        anchors = f"real_anchor={tuple(self.real_anchor.shape)}, "
        anchors += f"fake_anchor={tuple(self.fake_anchor.shape)}"
        settings = f"objective={self.objective}, dim={self.dim}, scale={self.scale}"
        return f"{anchors}, {settings}, {super().extra_repr()}"

    def _discriminator_call(self, real_logits: Tensor, fake_logits: Tensor) -> Call:
        options = {"dim": self.dim, "reduction": self.reduction, "scale": self.scale}
        anchors = self.real_anchor, self.fake_anchor
        return Call(F.realness_d_loss, (real_logits, fake_logits), anchors, options)

    def _generator_call(self, real_logits: Tensor | None, fake_logits: Tensor) -> Call:
        options = {
            "objective": self.objective,
            "dim": self.dim,
            "reduction": self.reduction,
            "scale": self.scale,
        }
        anchors = self.real_anchor, self.fake_anchor
        return Call(F.realness_g_loss, (real_logits, fake_logits), anchors, options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RealnessLoss:
        before = {name: getattr(self, name) for name in ("real_anchor", "fake_anchor")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, anchor in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, anchor.to(moved.device))
        return self
