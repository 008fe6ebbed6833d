"""The options of one training step."""

from __future__ import annotations

from dataclasses import dataclass

from gankernels._checks import check_integer
from gankernels.training.field_checks import check_choice, check_positive, check_types

__all__ = ["StepConfig"]


@dataclass(frozen=True)
class StepConfig:
    """What one training step does. The defaults change nothing but speed.

    Args:
        order: ``"d_first"`` or ``"g_first"``: which player an alternating step updates first.
        fake_first: Whether D sees the fake batch before the real one. The losses do not care; the
            running statistics of a BatchNorm in D do, and so does dropout's random stream.
        g_updates: Generator updates per discriminator update (alternating steps only).
        alpha: Strength of the gradient reversal (reversal steps only).
        amp: None, ``"bf16"`` or ``"fp16"``: autocast dtype of both networks. Losses stay float32.
        accumulate: Micro-batches per update; must divide the batch. Equal to one large batch for
            losses that are means over samples and networks without BatchNorm.
        clip: Largest gradient norm of each network, or None.
        r1_gamma: Weight of the R1 penalty ``gamma/2 E|grad D(real)|^2``; 0 turns it off.
        r2_gamma: Weight of the R2 penalty, R1's at the fake samples. Not in reversal and ratio steps, which
            hand D's gradient at those samples on to G.
        r1_every: Lazy regularisation: R1 and R2 are applied every so many steps, times as many.
        lecam: Weight of the LeCam penalty, for D with one logit per sample; its averages take in every
            micro-batch. Not in reversal and ratio steps either.
        grad_norms: Measure both gradient norms, which names the phase when one is not finite.
        channels_last: Memory format of networks and batches; average pooling and convolutions of
            small images are much faster in it on a CPU.
        compile: Run both networks through ``torch.compile``.
        optimizer: ``"fused"``, ``"foreach"`` or ``"loop"``: which form of Adam runs.
        cuda_graph: Capture whole steps as CUDA graphs and replay them: the same kernels without
            their launches. For one CUDA device and fused Adam, whose learning rate is then float32.

    Raises:
        TypeError: An option is not of its type.
        ValueError: An option is outside its range, or two of them exclude each other.
    """

    order: str = "d_first"
    fake_first: bool = False
    g_updates: int = 1
    alpha: float = 1.0
    amp: str | None = None
    accumulate: int = 1
    clip: float | None = None
    r1_gamma: float = 0.0
    r2_gamma: float = 0.0
    r1_every: int = 16
    lecam: float = 0.0
    grad_norms: bool = True
    channels_last: bool = True
    compile: bool = False
    optimizer: str = "fused"
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("order", self.order, ("d_first", "g_first"))
        check_choice("amp", self.amp, (None, "bf16", "fp16"))
        check_choice("optimizer", self.optimizer, ("fused", "foreach", "loop"))
        for name in ("g_updates", "accumulate", "r1_every"):
            check_positive(name, getattr(self, name))
        for name in ("r1_gamma", "r2_gamma", "lecam"):
            check_positive(name, getattr(self, name), 0)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, got {self.clip!r}")
        for name in ("r1_gamma", "r2_gamma"):
            if self.compile and getattr(self, name):
                # The compiled backward has no derivative of its own (AOTAutograd).
                raise ValueError(f"{name} needs double backward, which compile=True does not have")
        if self.cuda_graph and self.optimizer != "fused":
            raise ValueError(
                f"cuda_graph=True needs optimizer='fused', got {self.optimizer!r}, which counts its "
                "steps on the host"
            )
        if self.cuda_graph and self.compile:
            raise ValueError(
                "cuda_graph=True excludes compile=True, which may compile anew within a capture"
            )

    def penalty_due(self, iteration: int) -> bool:
        """Whether R1 and R2, so far as they have a weight, are applied at a step."""
        check_integer("iteration", iteration, 0)
        return max(self.r1_gamma, self.r2_gamma) > 0 and iteration % self.r1_every == 0

    def check_kind(self, kind: str) -> None:
        """Refuse penalties of D alone where its gradient at the fake samples becomes G's.

        Raises:
            ValueError: A reversal or ratio step with R2 or LeCam.
        """
        for name in ("r2_gamma", "lecam"):
            if kind in ("reversal", "ratio") and getattr(self, name):
                raise ValueError(
                    f"{name} must be 0 in a {kind} step, which hands D's gradient at the fake samples "
                    f"on to G, got {getattr(self, name)}; alternating and one_pass steps keep it to D"
                )
