"""The operator table: one row per operator, from which every generic test is made."""

from __future__ import annotations

from gankernels._scalar import SCALAR_LOSSES, ScalarLoss
from gankernels.testing import arguments, eager
from gankernels.testing.cases import PLAIN_SHAPES, SAMPLE_SHAPES, STATISTICS
from gankernels.testing.operator import Operator


def _scalar_loss(name: str, loss: ScalarLoss) -> Operator:
    """The row of a loss with one logit per row: one compiled operator serves them all."""
    terms = {"real_term": loss.real, "fake_term": loss.fake, "relativistic": loss.relativistic}
    smoothing = ({"label_smoothing": 0.1},) if name == "logistic_d_loss" else ()
    return Operator(
        name=name,
        arguments=arguments.two_batches if loss.real else arguments.one_batch,
        eager=eager.scalar_loss(loss),
        logits=("real_logits", "fake_logits") if loss.real else ("fake_logits",),
        shapes=PLAIN_SHAPES,
        options=({}, *smoothing),
        has_classes=False,
        uneven_batches=bool(loss.real),
        public="scalar_loss",
        constants=terms if loss.real else {**terms, "real_logits": None},
        couples_rows=loss.relativistic,
    )


# Temperatures are powers of two: large logits amplify the rounding of any other quotient, in float64 too.
OPERATORS: tuple[Operator, ...] = (
    Operator(
        name="softmax_kl",
        arguments=arguments.softmax_kl,
        eager=eager.softmax_kl,
        logits=("logits",),
        targets=("target",),
        further=({"temperature": 2.0, "scale": 0.6},),
    ),
    Operator(
        name="softmax_kl_logits",
        arguments=arguments.softmax_kl_logits,
        eager=eager.softmax_kl_logits,
        logits=("p_logits", "q_logits"),
        further=({"p_temperature": 2.0, "q_temperature": 0.5, "scale": -0.6},),
    ),
    Operator(
        name="realness_d_loss",
        arguments=arguments.realness_d,
        eager=eager.realness_d_loss,
        logits=("real_logits", "fake_logits"),
        targets=("real_anchor", "fake_anchor"),
        uneven_batches=True,
        further=({"scale": 0.6},),
    ),
    Operator(
        name="realness_g_loss",
        arguments=arguments.realness_g,
        eager=eager.realness_g_loss,
        logits=("real_logits", "fake_logits"),
        targets=("real_anchor", "fake_anchor"),
        options=({"objective": 1}, {"objective": 2}, {"objective": 3}),
    ),
    *(_scalar_loss(name, loss) for name, loss in SCALAR_LOSSES.items()),
    Operator(
        name="gradient_reversal",
        arguments=lambda case, draw: {"x": draw.normal(*case.shape)},
        eager=lambda x, alpha: eager.Scaled.apply(x, -alpha),  # type: ignore[no-untyped-call]
        logits=("x",),
        shapes=PLAIN_SHAPES,
        options=({"alpha": 1.0}, {"alpha": 0.3}),
        has_classes=False,
        reductions=(),
        public="gradient_scale",
        fused="",
        helpers=(),
        constants={"scale": None, "factor": -1.0},
        true_derivative=False,
    ),
    Operator(
        name="gradient_scale",
        arguments=arguments.gradient_scale,
        eager=eager.gradient_scale,
        logits=("x",),
        shapes=SAMPLE_SHAPES,
        has_classes=False,
        reductions=(),
        fused="",
        helpers=(),
        constants={"factor": 1.0},
        true_derivative=False,
    ),
    Operator(
        name="negate_",
        arguments=lambda case, draw: {"t": draw.normal(*case.shape)},
        eager=lambda t: -t,
        logits=("t",),
        shapes=PLAIN_SHAPES,
        has_classes=False,
        reductions=(),
        fused="",
        helpers=(),
        writes=("t",),
    ),
    Operator(
        name="resample_logits",
        arguments=arguments.resample,
        eager=eager.resample_logits,
        logits=("mu_logvar",),
        has_classes=False,
        reductions=(),
        fused="",
        helpers=("resample_forward", "resample_backward"),
        overflows=True,
    ),
    Operator(
        name="resampled_realness_d_loss",
        arguments=arguments.resampled_realness_d,
        eager=eager.resampled(eager.realness_d_loss),
        logits=("real_statistics", "fake_statistics"),
        shapes=STATISTICS,
        has_classes=False,
        uneven_batches=True,
        overflows=True,
    ),
    Operator(
        name="resampled_realness_g_loss",
        arguments=arguments.resampled_realness_g,
        eager=eager.resampled(eager.realness_g_loss),
        logits=("real_statistics", "fake_statistics"),
        shapes=STATISTICS,
        options=({"objective": 1}, {"objective": 2}, {"objective": 3}),
        has_classes=False,
        overflows=True,
    ),
)
"""The operator table."""
