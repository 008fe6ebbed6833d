"""The operator table: one row per operator, from which every generic test is made."""

from __future__ import annotations

from gankernels._scalar import SCALAR_LOSSES, ScalarLoss
from gankernels.testing import arguments, eager
from gankernels.testing.cases import PLAIN_SHAPES, SAMPLE_SHAPES, STATISTICS, Case
from gankernels.testing.operator import Operator

# What the compiled operators take in place of a loss's own arguments.
TERMS = ("tensors", "names", "places", "terms", "wanted")
RELATIVISTIC = ("real_term", "fake_term")


# One kernel serves all of these losses: labels and factors are tried where they differ in kind.
_OPTIONS: dict[str, tuple[dict[str, float], ...]] = {
    "logistic_d_loss": (
        {"label_smoothing": 0.1},
        {"scale": 0.7, "real_label": 0.3, "fake_label": 0.4},
    ),
    "lsgan_d_loss": ({"scale": 0.5, "real_label": 0.9, "fake_label": -0.3},),
    "lsgan_g_loss": ({"label": 0.3},),
    "relativistic_d_loss": ({"scale": 0.7},),
    "relativistic_pairing_d_loss": ({"scale": 0.7},),
}


def _scalar_loss(name: str, loss: ScalarLoss) -> Operator:
    """The row of a loss with one logit per row: one compiled operator serves them all."""
    two = len(loss.arguments) == 2
    # Halves of a loss that has a row of its own.
    half = name.endswith(("_d_real_loss", "_d_fake_loss"))
    return Operator(
        name=name,
        arguments=arguments.of_logits(loss.arguments),
        eager=eager.scalar_loss(loss),
        logits=loss.arguments,
        shapes=(Case((33, 20)), Case(())) if half else PLAIN_SHAPES,
        options=({}, *_OPTIONS.get(name, ())),
        has_classes=False,
        uneven_batches=two and loss.pair is None,
        public="relativistic_loss" if loss.relativistic else "scalar_loss",
        helpers=Operator.helpers if loss.relativistic else ("scale_terms", "scale_terms_"),
        constants=dict.fromkeys(RELATIVISTIC if loss.relativistic else TERMS),
        couples_rows=loss.relativistic,
        terms=loss,
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
        weighs=("p_logits",),
        further=({"p_temperature": 2.0, "q_temperature": 0.5, "scale": -0.6},),
    ),
    Operator(
        name="js_divergence",
        arguments=arguments.softmax_kl_logits,
        eager=eager.js_divergence,
        logits=("p_logits", "q_logits"),
        weighs=("p_logits", "q_logits"),
        constants={"beta": 0.5},
        further=({"beta": 0.1, "temperature": 2.0, "scale": 0.6},),
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
        weighs=("real_logits",),
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
        weighs=("real_statistics",),
        shapes=STATISTICS,
        options=({"objective": 1}, {"objective": 2}, {"objective": 3}),
        has_classes=False,
        overflows=True,
    ),
)
"""The operator table."""
