// What the instruction-set specific translation units offer; free of torch and of the instruction sets.
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
};

// loss_row = KL(P || q) - KL(M || q) with q = softmax(q_logits); P or M may be absent.
//   = sum P log P - sum M log M - sum B t + S log sum exp t,   B = P - M, S = sum B, t = q_logits - max.
//   d/dq_logits = S q - B
struct KlProblem {
  int64_t rows = 0, inner_rows = 1, classes = 0;
  bool class_contiguous = true;  // else the inner row stride is 1
  Dtype dtype = Dtype::kFloat;
  Positive positive = Positive::kAnchor;
  Rows q_logits, p_logits;
  Rows p_target, m_target;  // accumulation dtype, or the logits' dtype where target_like_logits
  bool target_like_logits = false;
  const void* anchor = nullptr;      // shared by all rows, accumulation dtype, contiguous
  double entropy = 0, mass = 0;      // what `anchor` adds to sum P log P - sum M log M, and S, where known beforehand
  bool linear = false;               // S = 0: the loss is linear in t and needs no exponential of it
  Rows q_grad, p_grad, target_grad;  // written where data is set
  double weight = 1;                 // gradients are multiplied by it
  void* row_loss = nullptr;          // per-row losses (accumulation dtype), in row order, where set
  bool add_to_row_loss = false;
};

enum class ScalarFunction { kSoftplus, kHinge, kSquare, kIdentity };

// One batch's part of a scalar loss: weight * f(sign * (x - offset)) + slope * x for every logit x.
struct ScalarTerm {
  ScalarFunction function = ScalarFunction::kIdentity;
  double sign = 1, offset = 0, weight = 1, slope = 0;
};

struct ScalarProblem {
  Dtype dtype = Dtype::kFloat;
  ScalarTerm term;
  const void* logits = nullptr;
  void* grad = nullptr;  // (derivative + gradient_constant) * weight, where set
  double gradient_constant = 0, weight = 1;
  void* row_loss = nullptr;  // per-element losses in the accumulation dtype, where set
  bool add_to_row_loss = false;
};

struct ScalarSums {
  double loss = 0, slope = 0;
};

struct AnchorSums {
  double mass = 0, entropy = 0;  // sum a, sum a log a
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

struct Kernels {
  const char* name;
  // Rows [begin, end); returns the sum of their losses. `scratch` holds scratch_bytes(problem).
  double (*kl)(const KlProblem& problem, int64_t begin, int64_t end, void* scratch);
  // Of n numbers, floats or doubles.
  AnchorSums (*anchor_sums)(Dtype dtype, const void* anchor, int64_t n);
  // Elements [begin, end); returns the sums of their losses and derivatives.
  ScalarSums (*scalar)(const ScalarProblem& problem, int64_t begin, int64_t end);
  // Blocks [begin, end).
  void (*resample)(const ResampleProblem& problem, int64_t begin, int64_t end);
  // out = in * factor over n elements; in and out may be the same.
  void (*scale)(Dtype dtype, const void* in, void* out, int64_t n, double factor);
};

const Kernels& portable_kernels();
#if defined(__x86_64__) && defined(__GNUC__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

// Rows of up to this many classes are transposed, so that each lane holds one row.
constexpr int64_t kTransposedClasses = 128;

// Room for two intermediate values per class and lane of the widest vector, and for seven transposed operands.
inline int64_t scratch_bytes(const KlProblem& p) {
  const bool by_lanes = !p.class_contiguous || p.classes <= kTransposedClasses;
  return 9 * (p.classes + 16) * (by_lanes ? 16 : 1) * static_cast<int64_t>(sizeof(double));
}

}  // namespace gankernels
