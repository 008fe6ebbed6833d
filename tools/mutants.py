"""Flips one sign or constant at a time in the C++ and the reference, and asks the tests to notice.

``make mutants`` checks out the last commit into a temporary directory, builds it there once, and then, for
each entry of :data:`MUTANTS`: changes the one place, compiles the translation units that see it, links them with
the objects of the others, runs the tests that ought to fail, and puts the text back. It fails if a mutant
survives, and leaves what it found in ``docs/results/mutants.json`` and ``docs/mutants.md``.

The tests run on the portable kernels, and nothing is optimised for speed but these, with torch's headers compiled
once: a mutant then costs seconds, not a minute, and what the tests compare depends on none of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "results" / "mutants.json"
TABLE = ROOT / "docs" / "mutants.md"


# --- what the tests must notice ------------------------------------------------------------------


@dataclass(frozen=True)
class Tests:
    """A part of the suite: what pytest is called with, and what it is asked to leave out."""

    files: tuple[str, ...]
    only: str = ""

    @property
    def arguments(self) -> list[str]:
        return [
            *(f"tests/{name}" for name in self.files),
            *(["-k", self.only] if self.only else []),
        ]


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        name: What ``--only`` takes.
        operators: The operators that it breaks: functions of ``gankernels``, and operators of
            ``torch.ops.gankernels`` where these have other names.
        file: Where.
        old: Text that occurs there exactly once.
        new: What replaces it.
        tests: The tests that must fail.
        what: What is wrong then.
        units: The translation units to compile, if not all that include ``file``.
    """

    name: str
    operators: tuple[str, ...]
    file: str
    old: str
    new: str
    tests: Tests
    what: str
    units: tuple[str, ...] = ()


VALUES = "contract/test_values.py"
EXTREMES = "contract/test_extremes.py"
LONG = "contract/test_long_rows.py"
DERIVATIVES = "contract/test_derivatives.py"
MODES = "contract/test_modes.py"
GAPS = "operators/test_mutants_gaps.py"

SOFTMAX_KL = Tests((VALUES, EXTREMES), "softmax_kl and not softmax_kl_logits")
LONG_ROWS = Tests((LONG,), "")
SOFTMAX_KL_LOGITS = Tests((VALUES,), "softmax_kl_logits")
REALNESS_D = Tests((VALUES,), "realness_d_loss")
REALNESS_G = Tests((VALUES,), "realness_g_loss")
EMPTY_BINS = Tests((VALUES, EXTREMES), "empty")
SECOND_ORDER = Tests((DERIVATIVES,), "softmax_kl and (second_derivative or three_derivatives)")
HALF_MEANS = Tests((MODES, GAPS), "underflow or fp16 or grad_scaler")
SCALAR = Tests((GAPS,), "scalar")
REVERSAL = Tests((GAPS, "operators/test_gradient_reversal.py"), "reversal and not compile")
RESAMPLE = Tests((GAPS,), "resample")
NEGATE = Tests((GAPS,), "negate")
SPECIFICATION = Tests(("operators/test_reference.py",), "not compile and not bad_call")

PORTABLE = ("csrc/cpu/simd/kernels_portable.cpp",)
LOSSES = ("csrc/autograd/divergence.cpp",)
LOGISTIC = (
    "logistic_d_loss",
    "nonsaturating_g_loss",
    "saturating_g_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
)

MUTANTS: tuple[Mutant, ...] = (
    # --- kernels: distributions
    Mutant(
        "kernel-anchor-gradient-sign",
        ("softmax_kl", "realness_d_loss"),
        "csrc/cpu/simd/divergence.h",
        "const Vec<A> b = tile.shared(anchor, k, n);\n"
        "      tile.put(grad, k, tile.get(exps, k, n) * r - weight * b, n);",
        "const Vec<A> b = tile.shared(anchor, k, n);\n"
        "      tile.put(grad, k, tile.get(exps, k, n) * r + weight * b, n);",
        SOFTMAX_KL,
        "S q + A instead of S q - A",
        PORTABLE,
    ),
    Mutant(
        "kernel-target-gradient-constant",
        ("softmax_kl",),
        "csrc/cpu/simd/divergence.h",
        "log<A>(a) + A(1) - log_q",
        "log<A>(a) - log_q",
        SOFTMAX_KL,
        "the 1 of d/dA = log A + 1 - log q is lost",
        PORTABLE,
    ),
    Mutant(
        "kernel-empty-bins-entropy",
        ("softmax_kl", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/divergence.h",
        "return a == A(0) ? Vec<A>{} : Vec<A>(a * log<A>(a));",
        "return Vec<A>(a * log<A>(a));",
        EMPTY_BINS,
        "0 log 0 is NaN",
        PORTABLE,
    ),
    Mutant(
        "kernel-empty-bins-product",
        ("softmax_kl", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/divergence.h",
        "return b == 0 ? V{} : V(b * t);",
        "return V(b * t);",
        EMPTY_BINS,
        "0 * -inf is NaN under an empty bin",
        PORTABLE,
    ),
    Mutant(
        "kernel-row-anchors-entropy-sign",
        ("realness_g_loss",),
        "csrc/cpu/simd/divergence.h",
        "x_log_x<A>(plus) - x_log_x<A>(minus)",
        "x_log_x<A>(plus) + x_log_x<A>(minus)",
        REALNESS_G,
        "objectives 1 and 3 with anchors per row: wrong sign of sum A0 log A0",
        PORTABLE,
    ),
    Mutant(
        "kernel-linear-gradient-sign",
        ("realness_g_loss",),
        "csrc/cpu/simd/divergence.h",
        "tile.put(grad, k, bad - weight * tile.shared(anchor, k, n), n);",
        "tile.put(grad, k, bad + weight * tile.shared(anchor, k, n), n);",
        REALNESS_G,
        "objective 3 with normalised anchors: A1 - A0 instead of A0 - A1",
        PORTABLE,
    ),
    Mutant(
        "kernel-softmax-loss-sign",
        ("realness_g_loss",),
        "csrc/cpu/simd/divergence.h",
        "- dot_t + tile.sum(minus_dot)",
        "- dot_t - tile.sum(minus_dot)",
        REALNESS_G,
        "objective 2: KL(A0 || q) is added",
        PORTABLE,
    ),
    Mutant(
        "kernel-softmax-q-gradient-sign",
        ("softmax_kl_logits",),
        "csrc/cpu/simd/divergence.h",
        "g += q_scale * tile.get(q_exps, k, n);",
        "g -= q_scale * tile.get(q_exps, k, n);",
        SOFTMAX_KL_LOGITS,
        "-q - p instead of q - p",
        PORTABLE,
    ),
    Mutant(
        "kernel-softmax-p-gradient-mean",
        ("softmax_kl_logits", "realness_g_loss"),
        "csrc/cpu/simd/divergence.h",
        "const Vec<A> mean_d = dot_u - dot_t;",
        "const Vec<A> mean_d = dot_u + dot_t;",
        SOFTMAX_KL_LOGITS,
        "p (d - sum p d) with the wrong mean",
        PORTABLE,
    ),
    Mutant(
        "kernel-last-class",
        ("softmax_kl", "softmax_kl_logits", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/divergence.h",
        "if (last > whole) f(whole,",
        "if (last > whole && problem.classes % lanes<A> > 1) f(whole,",
        SOFTMAX_KL,
        "a last class alone in its vector is skipped",
        PORTABLE,
    ),
    Mutant(
        "kernel-long-row-rescaling",
        ("softmax_kl", "realness_d_loss"),
        "csrc/cpu/simd/divergence.h",
        "s *= exp_non_positive<T>(top - m), dot += seen * (top - m);",
        "s *= exp_non_positive<T>(top - m);",
        LONG_ROWS,
        "the products of earlier chunks are not moved to a new maximum",
        PORTABLE,
    ),
    Mutant(
        "kernel-infinite-logits",
        ("softmax_kl", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/divergence.h",
        "return all == all ? tile.sum(plain)",
        "return all == all || true ? tile.sum(plain)",
        LONG_ROWS,
        "0 * -inf of an empty bin is NaN",
        PORTABLE,
    ),
    Mutant(
        "kernel-exp-coefficient-float",
        ("softmax_kl", "softmax_kl_logits", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/elementary.h",
        "0x1.555492p-3f",
        "0x1.565492p-3f",
        SOFTMAX_KL,
        "the cubic term of exp in float is off by a thousandth",
        PORTABLE,
    ),
    Mutant(
        "kernel-exp-coefficient",
        ("softmax_kl", "softmax_kl_logits", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/elementary.h",
        "factorial *= k == 0 ? 1 : k;",
        "factorial *= k == 0 ? 1 : (k == 6 ? 7 : k);",
        SOFTMAX_KL,
        "the coefficient of x^6 and above is 6/7 of 1/k!",
        PORTABLE,
    ),
    Mutant(
        "kernel-log-terms",
        ("softmax_kl", "softmax_kl_logits", "realness_d_loss", "realness_g_loss"),
        "csrc/cpu/simd/elementary.h",
        "twice_atanh<is_float ? 5 : 11, A>",
        "twice_atanh<is_float ? 5 : 7, A>",
        SOFTMAX_KL,
        "log in double is off by 5e-13",
        PORTABLE,
    ),
    Mutant(
        "cpu-uneven-batches",
        ("realness_d_loss",),
        "csrc/cpu/divergence.cpp",
        "totals[i] / static_cast<double>(problems[i]->rows)",
        "totals[i] / static_cast<double>(problems[0]->rows)",
        REALNESS_D,
        "both batches are divided by the first one's size",
    ),
    # --- kernels: scalar losses
    Mutant(
        "kernel-sigmoid",
        LOGISTIC,
        "csrc/cpu/simd/scalar.h",
        "(u < A(0) ? e : splat<A>(1)) / (e + A(1))",
        "(u > A(0) ? e : splat<A>(1)) / (e + A(1))",
        SCALAR,
        "the gradient of softplus(u) is sigmoid(-u)",
        PORTABLE,
    ),
    Mutant(
        "kernel-linear-term-slope",
        ("logistic_d_loss", "saturating_g_loss"),
        "csrc/cpu/simd/scalar.h",
        "g += slope;",
        "g -= slope;",
        SCALAR,
        "label smoothing and the saturating loss: wrong sign of the linear term's gradient",
        PORTABLE,
    ),
    Mutant(
        "kernel-hinge-margin",
        ("hinge_d_loss",),
        "csrc/cpu/simd/scalar.h",
        "const Vec<A> v = u + A(1);",
        "const Vec<A> v = u - A(1);",
        SCALAR,
        "relu(u - 1) instead of relu(u + 1)",
        PORTABLE,
    ),
    Mutant(
        "kernel-square",
        ("lsgan_d_loss", "lsgan_g_loss"),
        "csrc/cpu/simd/scalar.h",
        "{u * u * A(0.5), u}",
        "{u * u, u}",
        SCALAR,
        "u^2 instead of u^2 / 2",
        PORTABLE,
    ),
    Mutant(
        "kernel-identity-slope",
        ("wasserstein_d_loss", "wasserstein_g_loss", "hinge_g_loss"),
        "csrc/cpu/simd/scalar.h",
        "return {u, splat<A>(1)};",
        "return {u, splat<A>(-1)};",
        SCALAR,
        "the critic descends",
        PORTABLE,
    ),
    Mutant(
        "kernel-scalar-tail",
        ("scalar_loss",),
        "csrc/cpu/simd/scalar.h",
        "for (int k = 0; k < rest; ++k)",
        "for (int k = 0; k < lanes<A>; ++k)",
        SCALAR,
        "the empty lanes of the last vector count as logits of 0",
        PORTABLE,
    ),
    Mutant(
        "table-label-smoothing-sign",
        ("logistic_d_loss",),
        "gankernels/_scalar.py",
        "real=(*self.real[:4], float(label_smoothing))",
        "real=(*self.real[:4], -float(label_smoothing))",
        SCALAR,
        "real labels of 1 + s",
    ),
    Mutant(
        "cpu-relativistic-mean-gradient",
        ("relativistic_d_loss", "relativistic_g_loss"),
        "csrc/cpu/scalar.cpp",
        "real.gradient_constant = -of_fake",
        "real.gradient_constant = of_fake",
        SCALAR,
        "wrong sign of the gradient through the mean",
    ),
    Mutant(
        "formula-label-smoothing-sign",
        ("logistic_d_loss",),
        "csrc/autograd/scalar.cpp",
        "(slope_of(loss.real, real, {}) + loss.real.slope)",
        "(slope_of(loss.real, real, {}) - loss.real.slope)",
        SCALAR,
        "under create_graph: wrong sign of the linear term",
    ),
    Mutant(
        "formula-relativistic-mean-gradient",
        ("relativistic_d_loss", "relativistic_g_loss"),
        "csrc/autograd/scalar.cpp",
        "g_real = g_real - through_real + ",
        "g_real = g_real + through_real + ",
        SCALAR,
        "under create_graph: wrong sign of the gradient through the mean",
    ),
    # --- second-order terms and the backward pass
    Mutant(
        "formula-logits-gradient-sign",
        ("softmax_kl", "realness_d_loss", "realness_g_loss"),
        "csrc/autograd/formulas.h",
        "accumulate(logits).softmax(dim) - a;",
        "accumulate(logits).softmax(dim) + a;",
        Tests((DERIVATIVES,), "softmax_kl and create_graph"),
        "under create_graph: S q + A",
        LOSSES,
    ),
    Mutant(
        "formula-p-gradient-mean",
        ("softmax_kl_logits", "realness_g_loss"),
        "csrc/autograd/formulas.h",
        "difference - (p * difference).sum(dim, true)",
        "difference + (p * difference).sum(dim, true)",
        SECOND_ORDER,
        "under create_graph: p (d + sum p d)",
        LOSSES,
    ),
    Mutant(
        "backward-fp16-mean-folded",
        ("softmax_kl", "softmax_kl_logits", "realness_d_loss", "realness_g_loss", "scalar_loss"),
        "csrc/autograd/loss.h",
        "return logits.scalar_type() != at::kHalf;",
        "return logits.defined();",
        HALF_MEANS,
        "fp16 gradients are divided by the rows before a GradScaler's factor arrives",
        (*LOSSES, "csrc/autograd/scalar.cpp"),
    ),
    Mutant(
        "scale-gradient-mean-sign",
        ("scale_gradient", "scale_gradients"),  # the second is two calls of the first
        "csrc/operators/gradient_scale.h",
        "rows > 0 ? 1.0 / static_cast<double>(rows) : 1.0",
        "rows > 0 ? -1.0 / static_cast<double>(rows) : 1.0",
        Tests((VALUES,), "softmax_kl and 6x5"),
        "fp16 gradients of a mean change sign",
        ("csrc/cpu/gradient_scale.cpp", "csrc/cpu/backend.cpp"),
    ),
    Mutant(
        "scale-gradient-tail",
        ("scale_gradient", "scale_gradients"),  # the second is two calls of the first
        "csrc/cpu/simd/gradient_scale.h",
        "if (i < n) {",
        "if (i + 1 < n) {",
        Tests((GAPS,), "weighted"),
        "a last element alone in its vector is not written",
        PORTABLE,
    ),
    # --- layers
    Mutant(
        "reversal-in-place-sign",
        ("gradient_reversal", "gradient_scale"),
        "csrc/autograd/gradient_scale.cpp",
        "if (factor == -1) return g.neg_();",
        "if (factor == -1) return g;",
        REVERSAL,
        "the in-place path reverses nothing",
    ),
    Mutant(
        "reversal-no-tensor-count",
        ("gradient_reversal", "gradient_scale"),
        "csrc/autograd/gradient_scale.cpp",
        "g.use_count() == 1 &&",
        "",
        REVERSAL,
        "overwrites a gradient that somebody else holds",
    ),
    Mutant(
        "reversal-no-storage-count",
        ("gradient_reversal", "gradient_scale"),
        "csrc/autograd/gradient_scale.cpp",
        "g.storage().use_count() == 1 &&",
        "",
        REVERSAL,
        "overwrites memory that another tensor sees",
    ),
    Mutant(
        "negate-copies",
        ("negate_",),
        "csrc/autograd/gradient_scale.cpp",
        "return t.neg_();",
        "return t.abs_();",
        NEGATE,
        "the sign of a positive element stays",
    ),
    Mutant(
        "resample-forward-sign",
        ("resample_logits", "resample_forward"),
        "csrc/cpu/simd/resample.h",
        "load<A>(mean + i, n) + load<A>(noise + i, n) * deviation",
        "load<A>(mean + i, n) - load<A>(noise + i, n) * deviation",
        RESAMPLE,
        "mu - noise * sigma",
        PORTABLE,
    ),
    Mutant(
        "resample-backward-half",
        ("resample_logits", "resample_backward"),
        "csrc/cpu/simd/resample.h",
        "gradient * spread * A(0.5)",
        "gradient * spread",
        RESAMPLE,
        "the 1/2 of d/dlogvar is lost",
        PORTABLE,
    ),
    Mutant(
        "resampled-gradient-sign",
        ("resampled_realness_d_loss", "resampled_realness_g_loss"),
        "csrc/autograd/resampled.cpp",
        "Kernel<ResampleBackward>::call(to_logits, statistics,",
        "Kernel<ResampleBackward>::call(-to_logits, statistics,",
        RESAMPLE,
        "gradients to the statistics change sign",
    ),
    # --- shapes and dtypes without data
    Mutant(
        "outputs-loss-shape",
        ("softmax_kl",),
        "csrc/operators/divergence.h",
        "if (i != dim) sizes.push_back(logits.sym_size(i));",
        "sizes.push_back(logits.sym_size(i));",
        Tests((VALUES,), "softmax_kl and 6x5"),
        "per-row losses have a class dimension",
    ),
    # --- the reference
    Mutant(
        "reference-kl-sign",
        ("softmax_kl",),
        "gankernels/reference.py",
        "target.masked_fill(no_mass, 1).log() - log_q",
        "target.masked_fill(no_mass, 1).log() + log_q",
        SPECIFICATION,
        "log A + log q",
    ),
    Mutant(
        "reference-kl-empty-bins",
        ("softmax_kl",),
        "gankernels/reference.py",
        "no_mass = (target == 0) & ~log_q.isnan()",
        "no_mass = target == 0",
        SPECIFICATION,
        "a NaN row looks finite under empty bins",
    ),
    Mutant(
        "reference-kl-logits-zeros",
        ("softmax_kl_logits",),
        "gankernels/reference.py",
        "(log_p - log_q).masked_fill(p == 0, 0)",
        "(log_p - log_q)",
        SPECIFICATION,
        "0 * inf where p has underflowed",
    ),
    Mutant(
        "reference-kl-logits-sign",
        ("softmax_kl_logits",),
        "gankernels/reference.py",
        "return (p * (log_p - log_q)",
        "return (p * (log_q - log_p)",
        SPECIFICATION,
        "-KL(p || q)",
    ),
    Mutant(
        "reference-realness-d-anchor",
        ("realness_d_loss",),
        "gankernels/reference.py",
        "_kl_rows(_upcast(fake_logits), fake_anchor, index)",
        "_kl_rows(_upcast(fake_logits), real_anchor, index)",
        SPECIFICATION,
        "fakes are drawn to A1",
    ),
    Mutant(
        "reference-realness-g-sign",
        ("realness_g_loss",),
        "gankernels/reference.py",
        "rows = -_kl_rows(fake, fake_anchor, index)",
        "rows = _kl_rows(fake, fake_anchor, index)",
        SPECIFICATION,
        "every objective: A0 attracts",
    ),
    Mutant(
        "reference-realness-g-2",
        ("realness_g_loss",),
        "gankernels/reference.py",
        "rows = rows + _kl_logits_rows(",
        "rows = rows - _kl_logits_rows(",
        SPECIFICATION,
        "objective 2: -KL(p || q)",
    ),
    Mutant(
        "reference-realness-g-3",
        ("realness_g_loss",),
        "gankernels/reference.py",
        "rows = rows + _kl_rows(fake, real_anchor, index)",
        "rows = rows - _kl_rows(fake, real_anchor, index)",
        SPECIFICATION,
        "objective 3: A1 repels",
    ),
    Mutant(
        "reference-softplus",
        LOGISTIC,
        "gankernels/_scalar.py",
        "return -F.logsigmoid(-x)",
        "return F.softplus(x)",
        Tests((GAPS,), "softplus"),
        "linear above 20: softplus off by 2e-9",
    ),
    Mutant(
        "reference-label-smoothing-sign",
        ("logistic_d_loss",),
        "gankernels/_scalar.py",
        "of_real = of_real + label_smoothing * real",
        "of_real = of_real - label_smoothing * real",
        SPECIFICATION,
        "real labels of 1 + s",
    ),
    Mutant(
        "reference-nonsaturating-sign",
        ("nonsaturating_g_loss",),
        "gankernels/_scalar.py",
        "return softplus(-u)",
        "return softplus(u)",
        SPECIFICATION,
        "softplus(f)",
    ),
    Mutant(
        "reference-saturating-sign",
        ("saturating_g_loss",),
        "gankernels/_scalar.py",
        "lambda f: -softplus(f)",
        "lambda f: softplus(f)",
        SPECIFICATION,
        "softplus(f) instead of -softplus(f)",
    ),
    Mutant(
        "reference-hinge-margin",
        ("hinge_d_loss",),
        "gankernels/_scalar.py",
        "F.relu(1 - x)",
        "F.relu(2 - x)",
        SPECIFICATION,
        "a margin of 2",
    ),
    Mutant(
        "reference-critic-generator-sign",
        ("hinge_g_loss", "wasserstein_g_loss"),
        "gankernels/_scalar.py",
        "    return -x",
        "    return +x",
        SPECIFICATION,
        "f instead of -f",
    ),
    Mutant(
        "reference-wasserstein-sign",
        ("wasserstein_d_loss",),
        "gankernels/_scalar.py",
        "def _itself(x: Tensor) -> Tensor:\n    return x",
        "def _itself(x: Tensor) -> Tensor:\n    return -x",
        SPECIFICATION,
        "-r - f",
    ),
    Mutant(
        "reference-lsgan-d-target",
        ("lsgan_d_loss",),
        "gankernels/_scalar.py",
        "0.5 * x.square()",
        "0.5 * (x + 1).square()",
        SPECIFICATION,
        "reals are drawn to -1",
    ),
    Mutant(
        "reference-lsgan-g-target",
        ("lsgan_g_loss",),
        "gankernels/_scalar.py",
        "0.5 * (x - 1).square()",
        "0.5 * (x + 1).square()",
        SPECIFICATION,
        "fakes are drawn to -1",
    ),
    Mutant(
        "reference-relativistic-mean",
        ("relativistic_d_loss", "relativistic_g_loss"),
        "gankernels/_scalar.py",
        "self.of_fake(fake - real.mean()",
        "self.of_fake(fake - fake.mean()",
        SPECIFICATION,
        "compared with the mean of the same batch",
    ),
    Mutant(
        "reference-relativistic-roles",
        ("relativistic_g_loss",),
        "gankernels/_scalar.py",
        'term("softplus", sign=-1.0), _raise, term("softplus"), softplus, relativistic',
        'term("softplus", sign=-1.0), softplus, term("softplus"), _raise, relativistic',
        SPECIFICATION,
        "the generator plays for the discriminator",
    ),
    Mutant(
        "reference-reversal-sign",
        ("gradient_reversal",),
        "gankernels/reference.py",
        "_scale_gradient(x, -check.check_alpha(alpha))",
        "_scale_gradient(x, check.check_alpha(alpha))",
        SPECIFICATION,
        "+alpha g",
    ),
    Mutant(
        "reference-gradient-scale",
        ("gradient_scale",),
        "gankernels/reference.py",
        "return (gradient * scale).to(gradient.dtype)",
        "return (gradient / scale).to(gradient.dtype)",
        SPECIFICATION,
        "g / scale",
    ),
    Mutant(
        "reference-negate",
        ("negate_",),
        "gankernels/reference.py",
        "return t.neg_()",
        "return t.neg()",
        SPECIFICATION,
        "not in place",
    ),
    Mutant(
        "reference-resample",
        ("resample_logits",),
        "gankernels/reference.py",
        "(0.5 * log_variance)",
        "(1.0 * log_variance)",
        SPECIFICATION,
        "the variance instead of the deviation",
    ),
    Mutant(
        "reference-resampled-objective",
        ("resampled_realness_g_loss",),
        "gankernels/reference.py",
        "return realness_g_loss(real, fake, real_anchor, fake_anchor, objective, dim, reduction)",
        "return realness_g_loss(real, fake, real_anchor, fake_anchor, 1, dim, reduction)",
        RESAMPLE,
        "every objective is the first",
    ),
)


# --- building ------------------------------------------------------------------------------------

# Compiled once: nearly all of a translation unit's time goes to these.
PRECOMPILED = """\
#include <Python.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
"""


class CompileError(RuntimeError):
    """A change that is no valid C++."""


def run(command: Sequence[str], **options: object) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if result.returncode:
        raise CompileError(f"{' '.join(command)}\n{result.stderr[-4000:]}")


class Build:
    """The objects of an unchanged tree, and what it takes to replace some of them."""

    def __init__(self, tree: Path, objects: Path) -> None:
        from torch.utils import cpp_extension

        self.tree, self.objects = tree, objects
        includes = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
        self.compiler = os.environ.get("CXX", "c++")
        self.flags = ["-std=c++20", "-g0", "-DNDEBUG", "-fPIC", "-fopenmp", "-w"]
        self.flags += ["-fvisibility=hidden", *(f"-I{path}" for path in includes)]
        self.libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        self.libraries += ["-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
        # Without csrc/cuda, which a build for the CPU leaves out; its mutants are PTX, in tests/gpu.
        found = set(tree.glob("csrc/**/*.cpp")) - set(tree.glob("csrc/cuda/*.cpp"))
        self.units = sorted(str(p.relative_to(tree)) for p in found)
        self.header = objects / "torch.h"

    def everything(self, jobs: int) -> None:
        self.objects.mkdir()
        self.header.write_text(PRECOMPILED)
        gch = str(self.header) + ".gch"
        run([self.compiler, *self.flags, "-x", "c++-header", str(self.header), "-o", gch])
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda unit: self.compile(self.tree, unit, self.objects), self.units))
        self.link(self.tree, {})

    def compile(self, tree: Path, unit: str, into: Path) -> Path:
        target = into / (unit.replace("/", "_") + ".o")
        # The kernels are free of torch: their instruction set must not reach its headers.
        with_torch = "kernels_" not in unit and "capability" not in unit
        options = ["-include", str(self.header)] if with_torch else ["-O1"]
        command = [self.compiler, *self.flags, *options, "-MMD", "-c", unit, "-o", str(target)]
        run(command, cwd=tree)
        return target

    def dependents(self, file: str) -> list[str]:
        """The translation units that include ``file``."""
        if file.endswith(".cpp"):
            return [file]
        found = []
        for unit in self.units:
            text = (self.objects / (unit.replace("/", "_") + ".d")).read_text()
            paths = {os.path.normpath(p) for p in text.replace("\\n", " ").split()}
            if file in paths:
                found.append(unit)
        return found

    def link(self, tree: Path, changed: dict[str, Path]) -> None:
        objects = [
            changed.get(unit, self.objects / (unit.replace("/", "_") + ".o")) for unit in self.units
        ]
        target = tree / "gankernels" / ("_C" + sysconfig.get_config_var("EXT_SUFFIX"))
        command = [self.compiler, "-shared", *map(str, objects), *self.libraries, "-o", str(target)]
        run(command)


# --- running -------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What happened to a mutant: ``caught``, ``survived`` or ``error``, and by what."""

    outcome: str
    by: str
    seconds: float = 0.0


def run_tests(tree: Path, tests: Tests, timeout: float = 600) -> Outcome:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    environment = {
        **os.environ,
        "GANKERNELS_CPU_CAPABILITY": "portable",
        "GANKERNELS_REQUIRE_EXT": "1",
        "GANKERNELS_TEST_BACKENDS": "cpu,reference",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree),
    }
    try:
        result = subprocess.run(
            [*command, *tests.arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome("caught", "timeout")
    if result.returncode == 0:
        return Outcome("survived", "")
    failed = re.search(r"^FAILED (\S+)", result.stdout, re.MULTILINE)
    if result.returncode == 1 and failed:
        return Outcome("caught", failed[1])
    if result.returncode < 0:
        return Outcome("caught", f"crash (signal {-result.returncode})")
    return Outcome("error", (result.stdout + result.stderr)[-3000:])


def try_mutant(mutant: Mutant, tree: Path, build: Build, scratch: Path) -> Outcome:
    path = tree / mutant.file
    original = path.read_text()
    if original.count(mutant.old) != 1:
        return Outcome("error", f"the old text occurs {original.count(mutant.old)} times")
    compiled = mutant.file.startswith("csrc")
    start = time.monotonic()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        if compiled:
            objects = scratch / mutant.name
            objects.mkdir()
            units = mutant.units or build.dependents(mutant.file)
            build.link(tree, {unit: build.compile(tree, unit, objects) for unit in units})
        outcome = run_tests(tree, mutant.tests)
    except CompileError as error:
        outcome = Outcome("error", str(error))
    finally:
        path.write_text(original)
        if compiled:
            build.link(tree, {})
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def check_out(into: Path) -> str:
    """The last commit, and its name: what is checked must be what somebody else can check out."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    into.mkdir()
    archive = into.parent / "tree.tar"
    run(["git", "archive", "-o", str(archive), commit], cwd=ROOT)
    shutil.unpack_archive(archive, into)
    return commit


def versions(compiler: str) -> dict[str, str]:
    import torch

    line = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "compiler": line.splitlines()[0],
    }


def failing_anyway(mutants: Iterable[Mutant], trees: Sequence[Path]) -> dict[Tests, str]:
    """The tests that fail without any mutant: they catch nothing."""
    selections = list(dict.fromkeys(mutant.tests for mutant in mutants))
    with ThreadPoolExecutor(len(trees)) as pool:
        outcomes = list(pool.map(lambda tests: run_tests(trees[0], tests), selections))
    failing = {}
    for tests, found in zip(selections, outcomes, strict=True):
        if found.outcome != "survived":
            print(f"fails without any mutant: {tests.arguments}: {found.by}", flush=True)
            failing[tests] = found.by
    return failing


def check(mutants: Sequence[Mutant], jobs: int) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        base = Path(temporary)
        tree = base / "tree0"
        commit = check_out(tree)
        build = Build(tree, base / "objects")
        print(f"building {commit[:10]} in {tree}", flush=True)
        found_versions = versions(build.compiler)
        build.everything(jobs)
        metadata = {**found_versions, "cuda": None, "debug": False, "error": None}
        (tree / "gankernels" / "_build.json").write_text(json.dumps(metadata))
        trees = [tree] + [base / f"tree{i}" for i in range(1, jobs)]
        for copy in trees[1:]:
            shutil.copytree(tree, copy)
        print("running the tests without any mutant", flush=True)
        failing = failing_anyway(mutants, trees)
        free: queue.Queue[Path] = queue.Queue()
        for each in trees:
            free.put(each)
        scratch = base / "scratch"
        scratch.mkdir()
        lock = threading.Lock()

        def one(mutant: Mutant) -> Outcome:
            if mutant.tests in failing:
                outcome = Outcome("error", f"fails without any mutant: {failing[mutant.tests]}")
            else:
                mine = free.get()
                try:
                    outcome = try_mutant(mutant, mine, build, scratch)
                finally:
                    free.put(mine)
            with lock:
                write_result(commit, found_versions, mutant, outcome)
            print(
                f"{outcome.outcome:9}{outcome.seconds:6.1f} s  {mutant.name}  {outcome.by}",
                flush=True,
            )
            return outcome

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutants))


# --- reporting -----------------------------------------------------------------------------------


def write_result(
    commit: str, found_versions: dict[str, str], mutant: Mutant, outcome: Outcome
) -> None:
    """Keeps what was found about the others, each with the commit that it was found on."""
    rows = {}
    if RESULT.exists():
        rows = {row["name"]: row for row in json.loads(RESULT.read_text())["mutants"]}
    rows[mutant.name] = {
        "name": mutant.name,
        "file": mutant.file,
        "operators": list(mutant.operators),
        "what": mutant.what,
        "outcome": outcome.outcome,
        "by": outcome.by,
        "seconds": outcome.seconds,
        "commit": commit,
    }
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    listed = [rows[mutant.name] for mutant in MUTANTS if mutant.name in rows]
    result = {"date": date, "commit": commit, **found_versions, "mutants": listed}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    TABLE.write_text(table(result))


def table(result: dict[str, object]) -> str:
    rows = result["mutants"]
    assert isinstance(rows, list)
    caught = sum(row["outcome"] == "caught" for row in rows)
    lines = [
        "# Mutants",
        "",
        "Generated by `make mutants`, which changes one sign or constant at a time and runs the tests.",
        f"{caught} of {len(rows)} caught on {result['date']} at commit `{str(result['commit'])[:10]}`, "
        f"torch {result['torch']}.",
        "",
        "| Mutant | File | What is wrong | Outcome | First test to fail |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        test = re.sub(r"^tests/|\[.*", "", row["by"])
        what = row["what"].replace("|", "\\|")
        lines.append(f"| {row['name']} | {row['file']} | {what} | {row['outcome']} | {test} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these; the others keep their last result"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    arguments = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in arguments.only or ():
        if name not in known:
            parser.error(f"--only must name mutants of tools/mutants.py, got {name!r}")
    mutants = [known[name] for name in arguments.only] if arguments.only else list(MUTANTS)
    outcomes = check(mutants, max(1, arguments.jobs))
    escaped = [m.name for m, o in zip(mutants, outcomes, strict=True) if o.outcome != "caught"]
    print(f"{len(mutants) - len(escaped)} of {len(mutants)} mutants caught")
    if escaped:
        print("not caught:", *escaped)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
