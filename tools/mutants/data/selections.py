"""The tests and translation units that the mutants name."""

from __future__ import annotations

from tools.mutants.mutant import Tests

VALUES = "contract/test_values.py"
EXTREMES = "contract/test_extremes.py"
LONG = "contract/test_long_rows.py"
DERIVATIVES = "contract/test_derivatives.py"
MODES = "contract/test_modes.py"
MIXTURE = "contract/test_mixture.py"
GAPS = "operators/test_mutants_gaps.py"

ROW_WEIGHTS = Tests(("contract/test_row_weights.py",), "")
PARAMETERS = "operators/test_divergence_parameters.py"
TEMPERED = Tests((VALUES,), "temperature and cpu")
SCALED = Tests((VALUES,), "scale and (softmax or realness) and cpu")
SOFTMAX_KL = Tests((VALUES, EXTREMES), "softmax_kl and not softmax_kl_logits")
LONG_ROWS = Tests((LONG,), "")
SOFTMAX_KL_LOGITS = Tests((VALUES,), "softmax_kl_logits")
JS_DIVERGENCE = Tests((VALUES, PARAMETERS), "js and not triton and not cuda")
JS_EXTREMES = Tests((MIXTURE,), "cpu")
REALNESS_D = Tests((VALUES,), "realness_d_loss")
REALNESS_G = Tests((VALUES,), "realness_g_loss")
EMPTY_BINS = Tests((VALUES, EXTREMES), "empty")
SECOND_ORDER = Tests((DERIVATIVES,), "softmax_kl and (second_derivative or three_derivatives)")
SAVED = Tests((DERIVATIVES,), "saved and cpu")
HALF_MEANS = Tests((MODES, GAPS), "underflow or fp16 or grad_scaler")
SCALAR = Tests((GAPS,), "scalar")
LISTS = Tests(("contract/test_scalar_lists.py",), "cpu")
REVERSAL = Tests((GAPS, "operators/test_gradient_reversal.py"), "reversal and not compile")
RESAMPLE = Tests((GAPS,), "resample")
NEGATE = Tests((GAPS,), "negate")
SPECIFICATION = Tests(("operators/test_reference.py",), "not compile and not bad_call")

PORTABLE = ("csrc/cpu/simd/kernels_portable.cpp",)
LOSSES = ("csrc/autograd/divergence.cpp",)
CPU_DIVERGENCE = ("csrc/cpu/divergence.cpp",)
LOGISTIC = (
    "logistic_d_loss",
    "nonsaturating_g_loss",
    "saturating_g_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
)
