// What the CUDA launchers take: raw pointers, sizes and strides (in elements); free of torch and of CUDA.
#pragma once

#include <algorithm>
#include <string>

#include "../problems.h"

namespace gankernels::cuda {

// An anchor or a target.
struct Target {
  Rows rows;
  bool wide = true;    // of the accumulation dtype, else of the logits'
  bool shared = true;  // the same for all rows, or absent
};

// loss_row = KL(P || q) - KL(M || q), q = softmax(q_logits): P is `positive`, softmax(p_logits) or absent,
// M is `negative` or absent.
struct DivergenceTerm {
  int64_t rows = 0, inner_rows = 1;  // row = outer * inner_rows + inner
  Rows q_logits, p_logits;
  Rows q_grad, p_grad, target_grad;  // written where data is set; target_grad is that of `positive`
  Target positive, negative;
  double q_inverse = 1, p_inverse = 1;                   // of the temperatures, which logits are multiplied by
  double q_weight = 1, p_weight = 1, target_weight = 1;  // gradients are multiplied by them
  double loss_scale = 1;                                 // and the losses, or their sum, by this: 1 / rows for a mean
  double share = 0;  // beta of a mixture: beta KL(P || m) + (1 - beta) KL(q || m), m = beta P + (1 - beta) q
};

// Where a launch adds up what its blocks found.
struct Total {
  void* loss = nullptr;        // accumulation dtype; not written where null
  double* partials = nullptr;  // kMaxBlocks of them
  unsigned slot = 0;           // ticket counter, below kTicketSlots
};

constexpr int kMaxBlocks = 4096;
constexpr unsigned kTicketSlots = 8192;

struct DivergenceLaunch {
  DivergenceTerm terms[2];
  int count = 1;    // of terms
  int classes = 0;  // at most 2^31 - 1; offsets are 64-bit
  Dtype dtype = Dtype::kFloat;
  Positive positive = Positive::kAnchor;  // kTarget where a gradient to P is wanted
  bool wide = false;                      // classes side by side and aligned for accesses of 16 bytes
  bool columns = false;                   // rows side by side, classes apart
  bool one_after_other = false;           // the second term adds to the row losses of the first
  void* row_loss = nullptr;               // accumulation dtype, in row order, where set
  Total total;
  int parts = 1;              // of each row, a block for each: two launches
  void* part_sums = nullptr;  // kPartBytes for every part of every row
  int log2_share = 0;         // the launcher's own choice: threads of a row, for columns its warps

  int64_t rows() const { return terms[0].rows + (count > 1 ? terms[1].rows : 0); }
};

constexpr int kPartBytes = 64;

// Into how many parts the rows of a sum are split on the current device: 1 but for few long aligned ones.
int parts_of(const DivergenceLaunch& problem);

// Every launcher returns a cudaError_t as int; 0 is success. `stream` is a cudaStream_t.
int launch_divergence(const DivergenceLaunch& problem, void* stream);

struct ScalarBatch {
  const void* logits = nullptr;  // dense, `elements` of them
  void* grad = nullptr;          // in the order of the logits, where set
  int64_t elements = 0;
  double per_element = 0;  // 1 / elements
  ScalarTerm term;
  double weight = 1;      // gradients are multiplied by it
  double loss_scale = 1;  // 1 / elements for a mean
};

// What the first launches of a relativistic loss of many logits add up.
enum class RelativisticSums { kLogits, kSlopes };

// Each offset is, besides its own, the other batch's mean.
struct RelativisticLaunch {
  ScalarBatch real, fake;
  Dtype dtype = Dtype::kFloat;
  bool wide = false;  // every pointer aligned to 16 bytes
  bool mean = false;
  void* row_loss = nullptr;  // both batches' losses of an element added up, where set
  Total total;
  double* sums = nullptr;  // four of them, where a relativistic loss takes several launches
  RelativisticSums stage = RelativisticSums::kLogits;

  int64_t elements() const { return std::max(real.elements, fake.elements); }
};

// Logits of a batch up to which a relativistic loss is one launch, of one block.
constexpr int64_t kSingleBlockElements = 16384;

inline bool takes_several_launches(const RelativisticLaunch& problem) {
  return problem.elements() > kSingleBlockElements;
}

int launch_relativistic(const RelativisticLaunch& problem, void* stream);

// One tensor's term; all memory dense and in one order.
struct TermBatch {
  const void *logits = nullptr, *other = nullptr, *weights = nullptr;    // the last two where set
  void *grad = nullptr, *other_grad = nullptr, *weights_grad = nullptr;  // where set
  int64_t elements = 0, per_weight = 1;                                  // of these neighbours share a weight
  ScalarTerm term;
  double weight = 1, loss_scale = 1;  // of the gradients, of the sum of the losses
  int first_block = 0;                // of those that are on it
  int output = 0;
  Dtype dtype = Dtype::kFloat;
  bool wide = false;        // every pointer aligned to 16 bytes
  bool other_wide = false;  // of the accumulation dtype, else of the logits'
};

// Terms of a launch, whose arguments may take 4 KiB.
constexpr int kMostTerms = 24;

struct TermsLaunch {
  TermBatch terms[kMostTerms];  // those of an output one after the other
  int count = 0;
  void* losses[kMostTerms] = {};  // of the outputs; accumulation dtype
  bool is_double = false;         // what all is computed in
  bool rows = false;              // losses of elements, not sums
  bool continues = false;         // the first output is one that an earlier launch has begun
  Total total;
};

int launch_terms(const TermsLaunch& problem, void* stream);

struct ScaledTerm {
  const void* in = nullptr;
  void* out = nullptr;
  const void* grad_output = nullptr;  // accumulation dtype; one for each element, or for all
  int64_t elements = 0;
  double average = 1;
  int first_block = 0;
  Dtype dtype = Dtype::kFloat;
  bool by_element = false;
  bool wide = false;  // aligned
};

constexpr int kMostScaled = 64;

// out = in * grad_output * average for each.
struct ScaleTermsLaunch {
  ScaledTerm terms[kMostScaled];
  int count = 0;
  bool is_double = false;
};

int launch_scale_terms(const ScaleTermsLaunch& problem, void* stream);

enum class Spread { kOne, kRows, kElements };  // what grad_output holds a value for

struct ScaleBatch {
  const void* in = nullptr;
  void* out = nullptr;
  int64_t elements = 0;
  double average = 1;
};

// out = in * grad_output * average for one or two dense gradients, in the order (outer, class, inner).
struct ScaleLaunch {
  ScaleBatch first, second;
  const void* grad_output = nullptr;  // accumulation dtype
  Spread spread = Spread::kOne;
  int64_t classes = 1, inner = 1;
  Dtype dtype = Dtype::kFloat;
  bool wide = false;  // aligned, and runs of 16 bytes end with a row (classes side by side) or a class
};

int launch_scale(const ScaleLaunch& problem, void* stream);

// z = mean + noise * exp(log_variance / 2): blocks of means and of log-variances alternate in `statistics`.
struct ResampleLaunch {
  const void* statistics = nullptr;
  const void* noise = nullptr;  // accumulation dtype
  void* out = nullptr;          // z: written forward, read backward where it has the accumulation dtype
  const void* grad_out = nullptr;
  void* grad_statistics = nullptr;  // set: backward
  int64_t elements = 0, block = 0;  // of z, of a block of means
  Dtype dtype = Dtype::kFloat;
  bool wide = false;  // aligned, and blocks are of whole runs of 16 bytes
};

int launch_resample(const ResampleLaunch& problem, void* stream);

// Launches the smallest kernel there is; empty, or why that failed.
std::string launch_error();

}  // namespace gankernels::cuda
