// Gradients of the losses as differentiable ATen expressions: what backward returns under create_graph.
#pragma once

#include <ATen/TensorOperators.h>

#include "../operators/divergence.h"

namespace gankernels::formulas {

inline Tensor accumulate(const Tensor& t) { return t.to(accumulate_type(t.scalar_type())); }

// Logits as the softmax takes them.
inline Tensor tempered(const Tensor& logits, double temperature) {
  const Tensor z = accumulate(logits);
  return temperature == 1 ? z : z / temperature;
}

// Without rows that have no softmax, where nothing is asked of them: 0 * NaN would be NaN.
inline Tensor counted(const Tensor& z, const Tensor& grad_output, int64_t dim, int64_t reduction) {
  if (reduction != kNone) return z;
  const Tensor left_out =
      (grad_output.unsqueeze(dim) == 0).logical_and(z.logsumexp(dim, true).isfinite().logical_not());
  return z.masked_fill(left_out, 0);
}

// An anchor (K,) as (1, K, 1, ...), so that it broadcasts against the logits.
inline Tensor align(const Tensor& target, const Tensor& logits, int64_t dim) {
  if (target.dim() == logits.dim()) return target;
  c10::SymDimVector sizes(static_cast<size_t>(logits.dim()), 1);
  sizes[static_cast<size_t>(dim)] = logits.sym_size(dim);
  return target.reshape_symint(sizes);
}

inline Tensor rows_of(const Tensor& target, const Tensor& logits, int64_t dim) {
  return align(target.to(accumulate_type(logits.scalar_type())), logits, dim);
}

// `factor` d loss / d row_loss, broadcastable against the logits.
inline Tensor per_row(const Tensor& grad_output, const Tensor& logits, int64_t dim, int64_t reduction, double factor) {
  const Tensor g = factor == 1 ? grad_output : grad_output * factor;
  if (reduction == kNone) return g.unsqueeze(dim);
  return reduction == kMean ? g / sym_rows(logits, dim) : g;
}

// d/dz KL(A || softmax(z)) = sum(A) softmax(z) - A
inline Tensor kl_to_logits(const Tensor& target, const Tensor& logits, int64_t dim) {
  const Tensor a = rows_of(target, logits, dim);
  return a.sum(dim, true) * accumulate(logits).softmax(dim) - a;
}

// d/dA KL(A || softmax(z)) = log A + 1 - log softmax(z), and 0 where A = 0
inline Tensor kl_to_target(const Tensor& target, const Tensor& logits, int64_t dim) {
  const Tensor a = rows_of(target, logits, dim);
  const Tensor empty = a == 0;
  const Tensor log_q = accumulate(logits).log_softmax(dim).masked_fill(empty, 0);
  return (a.masked_fill(empty, 1).log() + 1 - log_q).masked_fill(empty, 0);
}

// d/dp_logits KL(P || Q) = P (log P - log Q - KL(P || Q)) for P = softmax(p_logits)
inline Tensor divergence_to_logits(const Tensor& log_p, const Tensor& log_q, int64_t dim) {
  const Tensor p = log_p.exp();
  const Tensor difference = (log_p - log_q).masked_fill(p == 0, 0);
  return p * (difference - (p * difference).sum(dim, true));
}

inline Tensor kl_to_p_logits(const Tensor& p_logits, const Tensor& q_logits, int64_t dim) {
  return divergence_to_logits(accumulate(p_logits).log_softmax(dim), accumulate(q_logits).log_softmax(dim), dim);
}

}  // namespace gankernels::formulas
