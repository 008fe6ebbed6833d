// What a kernel is asked to do, in raw pointers, sizes and strides; free of torch and of instruction sets.
#pragma once

#include <cstdint>

namespace gankernels {

enum class Dtype { kHalf, kBFloat16, kFloat, kDouble };

// One tensor seen as rows of classes: row (o, i) and class k lie at data + o*outer + i*inner + k*cls (elements).
struct Rows {
  void* data = nullptr;
  int64_t outer = 0, inner = 0, cls = 0;
};

// What stands before the || of the positive divergence.
enum class Positive {
  kAnchor,   // broadcast anchors, already combined into one vector: `anchor` holds P - M
  kTarget,   // per-row targets
  kSoftmax,  // softmax of other logits; `anchor` holds a broadcast M, if there is one
  kMixture,  // the same, and after the ||, of both divergences, their mixture
};

// loss_row = KL(P || q) - KL(M || q) with q = softmax(q_logits); P or M may be absent.
//   = sum P log P - sum M log M - sum B t + S log sum exp t,   B = P - M, S = sum B, t = q_logits - max.
//   d/dq_logits = S q - B
// q_inverse and p_inverse, of the temperatures, multiply the logits.
struct DivergenceProblem {
  int64_t rows = 0, inner_rows = 1, classes = 0;
  bool class_contiguous = true;  // else the inner row stride is 1
  Dtype dtype = Dtype::kFloat;
  Positive positive = Positive::kAnchor;
  Rows q_logits, p_logits;
  Rows p_target, m_target;  // accumulation dtype, or the logits' dtype where target_like_logits
  bool target_like_logits = false;
  const void* anchor = nullptr;  // shared by all rows, accumulation dtype, contiguous
  double entropy = 0, mass = 0;  // what `anchor` adds to sum P log P - sum M log M, and S, where known beforehand
  bool linear = false;           // S = 0: the loss is linear in t and needs no exponential of it
  double share = 0;              // beta of kMixture: beta KL(P || m) + (1 - beta) KL(q || m), m = beta P + (1 - beta) q
  double q_inverse = 1, p_inverse = 1;
  Rows q_grad, p_grad, target_grad;                      // written where data is set
  double q_weight = 1, p_weight = 1, target_weight = 1;  // gradients are multiplied by them
  double loss_scale = 1;                                 // and the losses by this
  void* row_loss = nullptr;                              // per-row losses (accumulation dtype), in row order, where set
  bool add_to_row_loss = false;
};

enum class ScalarFunction { kSoftplus, kHinge, kSquare, kIdentity, kAbsolute };
constexpr int kScalarFunctions = 5;

// One tensor's part of a scalar loss: weight * f(sign * (x - offset)) + slope * x for every logit x, less the logit at
// its place in another tensor where there is one.
struct ScalarTerm {
  ScalarFunction function = ScalarFunction::kIdentity;
  double sign = 1, offset = 0, weight = 1, slope = 0;
};

// (function, sign, offset, weight, slope), as ScalarTerm has them.
constexpr unsigned kTermNumbers = 5;

struct ScalarProblem {
  Dtype dtype = Dtype::kFloat;
  ScalarTerm term;
  const void* logits = nullptr;
  void* grad = nullptr;  // (derivative + gradient_constant) * weight, where set
  double gradient_constant = 0, weight = 1;
  const void* other = nullptr;    // subtracted from the logits, where set
  bool other_wide = false;        // of the accumulation dtype, else of the logits'
  void* other_grad = nullptr;     // -derivative * weight, in the dtype of `other`, where set
  const void* weights = nullptr;  // a factor for every `per_weight` elements, in the accumulation dtype, where set
  int64_t per_weight = 1;
  void* weights_grad = nullptr;  // an element's loss * weight, where set
  void* row_loss = nullptr;      // per-element losses in the accumulation dtype, where set
  bool add_to_row_loss = false;
};

struct ScalarSums {
  double loss = 0, slope = 0;
};

struct AnchorSums {
  double mass = 0, entropy = 0;  // sum a, sum a log a
};

// out = in * factor of its row; 0 where that is 0.
struct RowScaleProblem {
  Dtype dtype = Dtype::kFloat;
  int64_t classes = 1, inner = 1;  // in memory: (outer, classes, inner)
  const void* in = nullptr;
  void* out = nullptr;
  const void* factors = nullptr;  // (outer, inner), accumulation dtype
  double average = 1;             // a further factor

  // Runs of neighbours: rows where their classes are, else the rows beside each other at one class.
  int64_t run() const { return inner == 1 ? classes : inner; }
};

struct ResampleProblem {
  Dtype dtype = Dtype::kFloat;
  int64_t block = 0;  // elements of a block of means
  const void* statistics = nullptr;
  const void* noise = nullptr;  // accumulation dtype
  void* out = nullptr;          // z: written forward, read backward
  const void* grad_out = nullptr;
  void* grad_statistics = nullptr;  // set: backward
};

}  // namespace gankernels
