// All operators that a backend implements.
#pragma once

#include "divergence.h"
#include "gradient_scale.h"
#include "js_divergence.h"
#include "relativistic.h"
#include "resample.h"
#include "resampled.h"
#include "scalar.h"

namespace gankernels {

using Losses =
    Operators<SoftmaxKl, SoftmaxKlLogits, JsDivergence, RealnessD, RealnessG, ScalarLosses, RelativisticLoss>;
using ComposedLosses = Operators<ResampledRealnessD, ResampledRealnessG>;
using Layers =
    Operators<ResampleForward, ResampleBackward, ScaleGradient, ScaleGradients, ScaleTerms, ScaleTermsInPlace>;

// Of every operator that this library registers.
std::vector<std::string> operator_names();

template <class Backend>
void implement(torch::Library& m) {
  Losses::implement<Backend>(m);
  Layers::implement<Backend>(m);
}

}  // namespace gankernels
