// Training's fused operations on rows: norms, activation, loss, conversion, optimiser; V: training_vectors.h.  For the
// training files of the instruction sets alone: everything is internal to the file that includes it (see isa.h).
#pragma once

#include "kernels/training_vectors.h"

namespace photon::training {
namespace {

template <class V>
void rms_norm(const RmsNorm& op, i64 first_row, i64 end_row) {
  using Floats = typename V::Floats;
  const i64 D = op.width;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> x(op.x, r);
    Floats squares{};
    InRows normed = op.x;
    if (op.y.data) {
      const RowReader<V> y(op.y, r);
      const RowWriter<V> sum(op.sum, r);
      for (i64 i = 0; i < D; i += V::lanes) {
        const Floats s = x.at(i, D - i) + y.at(i, D - i);
        sum.put(i, s, D - i);
        if (!op.sum.is_bf16) squares += s * s;
      }
      normed = InRows{op.sum.data, op.sum.stride, op.sum.is_bf16};
    }
    const RowReader<V> source(normed, r);
    if (!op.y.data || op.sum.is_bf16) {  // a rounded sum is what the backward pass will read
      for (i64 i = 0; i < D; i += V::lanes) {
        const Floats s = source.at(i, D - i);
        squares += s * s;
      }
    }
    const float scale = 1.f / __builtin_sqrtf(V::sum_of(squares) / static_cast<float>(D) + op.eps);
    op.scale[r] = scale;
    const RowWriter<V> out(op.out, r);
    for (i64 i = 0; i < D; i += V::lanes) {
      out.put(i, source.at(i, D - i) * scale * load<V>(op.weight, i, D - i), D - i);
    }
  }
}

// With n = x·scale: grad_x = scale·(g∘w - n·mean(g∘w∘n)) + grad_sum, grad_w = Σ g∘n.
template <class V>
void rms_norm_backward(const RmsNormBackward& op, i64 first_row, i64 end_row) {
  using Floats = typename V::Floats;
  const i64 D = op.width;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> x(op.x, r), grad(op.grad_out, r);
    const float scale = op.scale[r];
    Floats products{};
    for (i64 i = 0; i < D; i += V::lanes) {
      const Floats gn = grad.at(i, D - i) * (x.at(i, D - i) * scale);
      products += gn * load<V>(op.weight, i, D - i);
      store<V>(op.grad_weight, i, load<V>(op.grad_weight, i, D - i) + gn, D - i);
    }
    const float mean = V::sum_of(products) / static_cast<float>(D);
    const RowWriter<V> grad_x(op.grad_x, r), grad_y(op.grad_y, r);
    for (i64 i = 0; i < D; i += V::lanes) {
      const Floats gw = grad.at(i, D - i) * load<V>(op.weight, i, D - i);
      Floats g = scale * (gw - x.at(i, D - i) * scale * mean);
      if (op.grad_sum.data) g += RowReader<V>(op.grad_sum, r).at(i, D - i);
      grad_x.put(i, g, D - i);
      if (op.grad_y.data) grad_y.put(i, g, D - i);
    }
  }
}

template <class V>
typename V::Floats sigmoid(typename V::Floats x) {
  return V::reciprocal(1.f + exp<V>(V::min(V::set1(87.f), -x)));
}

template <class V>
void swiglu(const Swiglu& op, i64 first_row, i64 end_row) {
  using Floats = typename V::Floats;
  const i64 D = op.width;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> gate(op.gate, r), up(op.up, r);
    const RowWriter<V> out(op.out, r);
    for (i64 i = 0; i < D; i += V::lanes) {
      const Floats g = gate.at(i, D - i);
      out.put(i, g * sigmoid<V>(g) * up.at(i, D - i), D - i);
    }
  }
}

template <class V>
void swiglu_backward(const SwigluBackward& op, i64 first_row, i64 end_row) {
  using Floats = typename V::Floats;
  const i64 D = op.width;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> gate(op.gate, r), up(op.up, r), grad(op.grad_out, r);
    const RowWriter<V> grad_gate(op.grad_gate, r), grad_up(op.grad_up, r);
    for (i64 i = 0; i < D; i += V::lanes) {
      const Floats g = gate.at(i, D - i), s = sigmoid<V>(g), d = grad.at(i, D - i);
      grad_gate.put(i, d * up.at(i, D - i) * s * (1.f + g * (1.f - s)), D - i);
      grad_up.put(i, d * g * s, D - i);
    }
  }
}

template <class V>
void cross_entropy(const CrossEntropy& op, i64 first_row, i64 end_row) {
  using Floats = typename V::Floats;
  constexpr i64 lanes = V::lanes;
  const i64 width = op.width, whole = width / lanes * lanes;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> logits(op.logits, r);
    const Floats tail = logits.at(whole, width - whole);
    Floats greatest = V::set1(logits.at(0, 1)[0]);
    for (i64 i = 0; i < whole; i += lanes) greatest = V::max(logits.at(i, lanes), greatest);
    float shift = V::max_of(greatest);
    for (int i = 0; i < width - whole; ++i) shift = tail[i] > shift ? tail[i] : shift;
    Floats sums{};
    for (i64 i = 0; i < whole; i += lanes) sums += exp<V>(logits.at(i, lanes) - shift);
    float sum = V::sum_of(sums);
    const Floats tail_exp = exp<V>(tail - shift);
    for (int i = 0; i < width - whole; ++i) sum += tail_exp[i];
    op.log_sum_exp[r] = shift + __builtin_logf(sum);
    op.nll[r] = op.log_sum_exp[r] - logits.at(op.targets[r], 1)[0];
  }
}

template <class V>
void cross_entropy_backward(const CrossEntropyBackward& op, i64 first_row, i64 end_row) {
  const i64 width = op.width;
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> logits(op.logits, r);
    const RowWriter<V> grad(op.grad, r);
    const float log_sum_exp = op.log_sum_exp[r];
    for (i64 i = 0; i < width; i += V::lanes)
      grad.put(i, exp<V>(logits.at(i, width - i) - log_sum_exp) * op.scale, width - i);
    const i64 target = op.targets[r];
    grad.put(target, (exp<V>(logits.at(target, 1) - log_sum_exp) - 1.f) * op.scale, 1);
  }
}

template <class V>
void convert(const Convert& op, i64 first_row, i64 end_row) {
  for (i64 r = first_row; r < end_row; ++r) {
    const RowReader<V> in(op.in, r);
    const RowWriter<V> out(op.out, r);
    for (i64 i = 0; i < op.width; i += V::lanes) out.put(i, in.at(i, op.width - i), op.width - i);
  }
}

template <class V>
void adamw(const AdamW& op, i64 first, i64 end) {
  using Floats = typename V::Floats;
  for (i64 i = first; i < end; i += V::lanes) {
    const i64 n = end - i;
    const Floats g = load<V>(op.grad, i, n) * op.grad_scale;
    const Floats m = load<V>(op.m, i, n) * op.beta1 + g * (1.f - op.beta1);
    const Floats v = load<V>(op.v, i, n) * op.beta2 + g * g * (1.f - op.beta2);
    store<V>(op.m, i, m, n);
    store<V>(op.v, i, v, n);
    const Floats step = op.step_size * m / (V::square_root(v) * op.v_scale + op.eps);
    store<V>(op.param, i, load<V>(op.param, i, n) * op.decay - step, n);
  }
}

template <class V>
double sum_of_squares(const float* x, i64 n) {
  using Floats = typename V::Floats;
  constexpr i64 block = 4096;  // float32 within a block, float64 across blocks
  double total = 0;
  for (i64 first = 0; first < n; first += block) {
    const i64 end = n < first + block ? n : first + block;
    Floats sums{};
    for (i64 i = first; i < end; i += V::lanes) {
      const Floats y = load<V>(x, i, end - i);
      sums += y * y;
    }
    total += static_cast<double>(V::sum_of(sums));
  }
  return total;
}

}  // namespace
}  // namespace photon::training
