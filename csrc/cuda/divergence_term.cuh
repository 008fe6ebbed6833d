// Which of a problem's two terms a block is on.
#pragma once

#include "platform.cuh"
#include "launches.h"

namespace gankernels::cuda {

// Field by field: an index into the parameters would copy them to local memory.
GK_DEVICE void select(Rows& out, bool second, const Rows& a, const Rows& b) {
  out.data = second ? b.data : a.data;
  out.outer = second ? b.outer : a.outer;
  out.inner = second ? b.inner : a.inner;
  out.cls = second ? b.cls : a.cls;
}

GK_DEVICE void select(Target& out, bool second, const Target& a, const Target& b) {
  select(out.rows, second, a.rows, b.rows);
  out.wide = second ? b.wide : a.wide;
  out.shared = second ? b.shared : a.shared;
}

GK_DEVICE void select(DivergenceTerm& out, bool second, const DivergenceTerm& a, const DivergenceTerm& b) {
  out.rows = second ? b.rows : a.rows;
  out.inner_rows = second ? b.inner_rows : a.inner_rows;
  select(out.q_logits, second, a.q_logits, b.q_logits);
  select(out.p_logits, second, a.p_logits, b.p_logits);
  select(out.q_grad, second, a.q_grad, b.q_grad);
  select(out.p_grad, second, a.p_grad, b.p_grad);
  select(out.target_grad, second, a.target_grad, b.target_grad);
  select(out.positive, second, a.positive, b.positive);
  select(out.negative, second, a.negative, b.negative);
  out.q_inverse = second ? b.q_inverse : a.q_inverse;
  out.p_inverse = second ? b.p_inverse : a.p_inverse;
  out.q_weight = second ? b.q_weight : a.q_weight;
  out.p_weight = second ? b.p_weight : a.p_weight;
  out.target_weight = second ? b.target_weight : a.target_weight;
  out.loss_scale = second ? b.loss_scale : a.loss_scale;
  out.share = second ? b.share : a.share;
}

}  // namespace gankernels::cuda
