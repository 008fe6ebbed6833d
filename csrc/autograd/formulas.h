// Gradients of the losses as differentiable ATen expressions: what backward returns under create_graph.
#pragma once

#include <ATen/TensorOperators.h>

#include "../operators/divergence.h"

namespace gankernels::formulas {

inline Tensor accumulate(const Tensor& t) { return t.to(accumulate_type(t.scalar_type())); }

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

// d loss / d row_loss, broadcastable against the logits.
inline Tensor per_row(const Tensor& grad_output, const Tensor& logits, int64_t dim, int64_t reduction) {
  if (reduction == kNone) return grad_output.unsqueeze(dim);
  return reduction == kMean ? grad_output / sym_rows(logits, dim) : grad_output;
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

// d/dp KL(P || Q) = P (log P - log Q - KL(P || Q)) for P = softmax(p_logits), Q = softmax(q_logits)
inline Tensor kl_to_p_logits(const Tensor& p_logits, const Tensor& q_logits, int64_t dim) {
  const Tensor log_p = accumulate(p_logits).log_softmax(dim);
  const Tensor p = log_p.exp();
  const Tensor difference = (log_p - accumulate(q_logits).log_softmax(dim)).masked_fill(p == 0, 0);
  return p * (difference - (p * difference).sum(dim, true));
}

}  // namespace gankernels::formulas
