"""Layers around the operators that are not losses: gradient reversal and scaling, feature resampling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gankernels import _checks as check
from gankernels import functional
from gankernels._uncompiled import uncompiled

__all__ = [
    "DeferredGradientScale",
    "FeatureResampling",
    "GradientReversal",
]

SCHEDULES = ("constant", "linear", "ganin")


class GradientReversal(nn.Module):
    r"""Gradient reversal as a module, with a schedule of its strength.

    Forward identity, backward :math:`g \mapsto -\alpha(p) \, g`, where :math:`p` is the share of the steps
    done, at most 1 unless ``clamp=False``:

    ========== ================================================================================
    schedule   :math:`\alpha(p)`
    ========== ================================================================================
    constant   :math:`\alpha`
    linear     :math:`\alpha \, (lo + (hi - lo) \, p)`
    ganin      :math:`\alpha \, (lo + (hi - lo) (2 / (1 + e^{-slope \cdot p}) - 1))`
    ========== ================================================================================

    The schedule advances only by :meth:`advance`, once per training step, or with ``auto_step`` by each
    forward pass in training mode, which itself still has the strength from before. It lives in buffers: it is
    saved in ``state_dict``, resumes from it, and costs no host synchronisation on a GPU. A constant strength
    has no state, so the layer can stand where a checkpoint had another reversal layer or ``nn.Identity``.
    ``torch.fx.symbolic_trace`` records the layer as one module; :meth:`advance` breaks the graph of
    ``torch.compile``.

    The ``WarmStartGradientReverseLayer(alpha, lo, hi, max_iters, auto_step)`` of transfer-learning code is
    ``GradientReversal(schedule="ganin", steps=max_iters, slope=alpha, lo=lo, hi=hi, auto_step=auto_step,
    clamp=False)``; its ``step()`` is :meth:`advance`.

    The forward copies its input: see :func:`gankernels.gradient_reversal` for why.

    Args:
        alpha: The strength, or the factor of a schedule: a number or a tensor with one element. It may be
            assigned later; a schedule's current strength follows at once.
        schedule: ``None`` or ``"constant"``, ``"linear"``, ``"ganin"``.
        steps: The number of steps after which a schedule is complete; needed unless constant.
        lo: Where a schedule begins.
        hi: Where it leads: linear arrives there, ganin comes within ``2 / (1 + exp(slope))`` of the way.
        slope: How steeply ganin rises; Ganin et al. have 10.
        auto_step: Each forward pass in training mode is a step.
        clamp: A schedule that is complete stays; if false it goes on, ganin towards ``hi``.

    Raises:
        TypeError: ``alpha`` is neither a number nor a tensor.
        ValueError: an unknown schedule, a schedule without a positive number of steps, an option that the
            schedule does not have, a number that is not finite, or ``alpha`` with several elements.

    Source: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks" (its schedule, gamma = 10).

    Example:
        >>> import torch, gankernels as gk
        >>> layer = gk.GradientReversal(alpha=1.0, schedule="linear", steps=4)
        >>> layer.advance(2)
        >>> x = torch.ones(1, requires_grad=True)
        >>> layer(x).backward()
        >>> x.grad
        tensor([-0.5000])
    """

    step: Tensor
    current_alpha: Tensor

    def __init__(
        self,
        alpha: float | Tensor = 1.0,
        schedule: str | None = None,
        steps: int | None = None,
        *,
        lo: float = 0.0,
        hi: float = 1.0,
        slope: float = 10.0,
        auto_step: bool = False,
        clamp: bool = True,
    ) -> None:
        super().__init__()
        schedule = schedule or "constant"
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES} or None, got {schedule!r}")
        if steps is not None:
            check.check_integer("steps", steps, 1, " or None")
        elif schedule != "constant":
            raise ValueError(f"steps must be at least 1 for schedule {schedule!r}, got {steps}")
        own = {"lo": lo, "hi": hi, "slope": slope, "auto_step": auto_step, "clamp": clamp}
        _check_schedule(schedule, own)
        self.schedule, self.steps = schedule, steps
        self.lo, self.hi, self.slope = float(lo), float(hi), float(slope)
        self.auto_step, self.clamp = auto_step, clamp
        stateful = schedule != "constant"
        step, strength = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float32)
        self.register_buffer("step", step, persistent=stateful)
        self.register_buffer("current_alpha", strength, persistent=stateful)
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The strength, or its final value."""
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: float | Tensor) -> None:
        number = float(check.check_alpha(alpha))
        if not math.isfinite(number):
            raise ValueError(f"alpha must be finite, got {number}")
        self._alpha = number
        self._update()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):
            return _as_one_module(self, x)
        if self.schedule == "constant":
            return functional.gradient_reversal(x, self._alpha)
        # A copy: advancing between forward and backward must not change this step's gradient.
        strength = self.current_alpha.clone()
        if self.auto_step and self.training:
            self.advance()
        return functional.gradient_reversal(x, strength)

    # A compiled backward pass would read the strength after this step.
    @uncompiled
    @torch.no_grad()
    def advance(self, steps: int = 1) -> None:
        """Counts training steps; call it once per step."""
        self.step += check.check_integer("steps", steps)
        self._update()

    @torch.no_grad()
    def _update(self) -> None:
        if self.schedule == "constant":
            self.current_alpha.fill_(self._alpha)
            return
        progress = self.step / (self.steps or 1)
        if self.clamp:
            progress = progress.clamp(max=1.0)
        if self.schedule == "ganin":
            # 2 / (1 + exp(-x)) - 1 = tanh(x / 2), which loses no digit near 0.
            progress = torch.tanh(self.slope / 2 * progress)
        self.current_alpha.copy_(self._alpha * (self.lo + (self.hi - self.lo) * progress))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        if self.schedule == "constant":  # which checkpoints of version 0.1 hold buffers for
            for name in ("step", "current_alpha"):
                state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        text = f"alpha={self.alpha}, schedule={self.schedule!r}, steps={self.steps}"
        own = ((name, getattr(self, name)) for name in _SCHEDULE_DEFAULTS)
        changed = [f"{name}={value}" for name, value in own if value != _SCHEDULE_DEFAULTS[name]]
        return ", ".join([text, *changed])


_SCHEDULE_DEFAULTS = {"lo": 0.0, "hi": 1.0, "slope": 10.0, "auto_step": False, "clamp": True}


def _check_schedule(schedule: str, options: dict[str, float]) -> None:
    """Refuse what is not finite, and what ``schedule`` would not obey."""
    for name, value in options.items():
        check.check_number(name, value, "True or False")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
        obeyed = schedule == "ganin" or (schedule == "linear" and name != "slope")
        if not obeyed and value != _SCHEDULE_DEFAULTS[name]:
            raise ValueError(f"{name} has no effect: schedule {schedule!r} has none, got {value}")


class FeatureResampling(nn.Module):
    r"""Feature resampling as D's last layer: 2K statistics in, K logits out.

    :math:`z = \mu + \varepsilon \, e^{v/2}` in training mode, :math:`\mu` in evaluation mode; see
    ``gankernels.resample_logits``.

    Args:
        dim: The dimension along which K means and then K log-variances are stacked. Of ``(B, S, 2V)`` the
            default is the sequence: the vocabulary is ``dim=-1``.
        resample_in_eval: Draw noise in evaluation mode too, as the official RealnessGAN code does.
        generator: Source of the noise.

    Source: Xiangli et al. 2020, "feature resampling".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.FeatureResampling().eval()(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
        tensor([[1., 2.]])
        >>> gk.FeatureResampling(dim=-1)(torch.zeros(2, 7, 6)).shape  # (B, S, 2V)
        torch.Size([2, 7, 3])
    """

    def __init__(
        self,
        dim: int = 1,
        resample_in_eval: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim = check.check_integer("dim", dim)
        self.resample_in_eval = resample_in_eval
        self.generator = generator

    def forward(self, mu_logvar: Tensor) -> Tensor:
        if isinstance(mu_logvar, torch.fx.Proxy):
            return _as_one_module(self, mu_logvar)
        if self.training or self.resample_in_eval:
            return functional.resample_logits(mu_logvar, self.dim, self.generator)
        check.check_statistics("mu_logvar", mu_logvar, self.dim)
        return mu_logvar.chunk(2, self.dim)[0]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, resample_in_eval={self.resample_in_eval}"


def _as_one_module(module: nn.Module, x: torch.fx.Proxy) -> Any:
    """A call of ``module`` in the graph being traced: its mode and its state are read when the graph runs."""
    path = x.tracer.path_of_module(module)  # type: ignore[attr-defined]
    return x.tracer.create_proxy("call_module", path, (x,), {})


class DeferredGradientScale:
    r"""A per-sample gradient factor that is known only after the forward pass has gone on.

    Put it between generator and discriminator, run the discriminator, then :meth:`set` the factor: the
    backward pass multiplies sample ``n``'s gradient by ``scale[n]``. Each object serves one forward pass;
    two models, or two passes of one, use two objects, and nothing is shared between them. The forward copies
    its input: see :func:`gankernels.gradient_reversal` for why.

    Inside ``torch.compile`` (``fullgraph=True`` too) make, call and set it in the same compiled function; there
    a factor that was never set makes the gradient NaN, since a graph cannot raise. ``torch.fx.symbolic_trace``
    cannot record it.

    Raises:
        TypeError: the input is not a dense floating-point tensor, or is being traced symbolically.
        ValueError: in the backward pass, a factor that is neither 0-dim nor ``(N,)``.
        RuntimeError: used for a second forward pass, or in a backward pass before the factor was set.

    Example: one backward pass that trains D on the logistic and G on the non-saturating loss.

        >>> import torch, gankernels as gk
        >>> generator, discriminator = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        >>> factor = gk.DeferredGradientScale()
        >>> real_images, fake_images = torch.randn(4, 3), factor(generator(torch.randn(4, 2)))
        >>> fake_logits = discriminator(fake_images).squeeze(1)
        >>> factor.set(gk.nonsaturating_ratio(fake_logits))
        >>> gk.logistic_d_loss(discriminator(real_images).squeeze(1), fake_logits).backward()
        >>> generator.weight.grad.shape
        torch.Size([3, 2])
    """

    def __init__(self) -> None:
        self._scale: Tensor | None = None
        self._traced_scale: Tensor | None = None
        self._used = False

    def __call__(self, x: Tensor) -> Tensor:
        if self._used:
            raise RuntimeError(
                "DeferredGradientScale serves one forward pass: make a new one per pass"
            )
        check.check_floating("x", x)
        self._used = True
        if torch.compiler.is_compiling():
            # The backward pass is traced along with the forward one: what it reads must exist by then.
            dtype = torch.promote_types(x.dtype, torch.float32)
            self._traced_scale = torch.full(x.shape[:1], math.nan, dtype=dtype, device=x.device)
            return _DeferredTraced.apply(x, self._traced_scale)  # type: ignore[no-any-return, no-untyped-call]
        return _Deferred.apply(x, self)  # type: ignore[no-any-return, no-untyped-call]

    def set(self, scale: Tensor) -> None:
        """Sets the factor, ``(N,)`` or 0-dim, before the backward pass."""
        check.check_tensor("scale", scale)
        self._scale = scale.detach()
        if self._traced_scale is not None:
            self._traced_scale.copy_(self._scale)

    def _factor(self) -> Tensor:
        if self._scale is None:
            raise RuntimeError("DeferredGradientScale: backward before set(scale) was called")
        return self._scale


def _scaled(g: Tensor, scale: Tensor) -> Tensor:
    if scale.ndim == 1:
        scale = scale.reshape([-1] + [1] * (g.ndim - 1))
    # In the factor's precision: a 16-bit factor would overflow where the product does not.
    return (g.to(scale.dtype) * scale).to(g.dtype)


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: DeferredGradientScale) -> Tensor:
        ctx.owner = owner
        return x.clone()  # not a view: an in-place layer may follow

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        scale = ctx.owner._factor()
        check.check_scale(scale, grads[0])
        return _scaled(grads[0], scale), None


class _DeferredTraced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _scaled(grads[0], *ctx.saved_tensors), None
