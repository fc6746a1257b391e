// matmul(): the kernels of this CPU for few rows, where reading the weights is the cost; oneDNN for many, where
// arithmetic is.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdint>

#include "kernels/kernels.h"

namespace photon {
namespace {

std::atomic<std::int64_t> onednn_from{INT64_MAX};

// The part of the outputs [first, first + n) that the table's kernel computes.
void few_rows(MatView<const float> x, const Weight& w, std::int64_t first, std::int64_t n, MatView<float> y, bool add) {
  const MatView<float> part{y.data + first, y.rows, n, y.stride};
  if (w.type == Weight::Type::f32) return kernels().matmul_f32(x, w.f32.slice(first, n), part, add);
  kernels().matmul_bf16(x, w.b16.slice(first, n), part, add);
}

}  // namespace

void matmul(MatView<const float> x, const Weight& w, MatView<float> y, bool add) {
  assert(x.cols == w.cols() && y.rows == x.rows && y.cols == w.rows());
  if (x.rows == 0 || w.rows() == 0) return;
  // Waking the threads costs about as much as reading this many bytes of weights.
  constexpr std::int64_t bytes_worth_a_thread = 64 << 10;
  constexpr std::int64_t outputs_together = 24;  // a multiple of what every kernel computes at once: no tails inside
  const std::int64_t outputs = w.rows();
  const std::int64_t bytes =
      outputs * w.cols() * (w.type == Weight::Type::f32 ? 4 : 2) * std::max<std::int64_t>(1, x.rows / 4);
  const std::int64_t blocks = (outputs + outputs_together - 1) / outputs_together;
  const std::int64_t n_threads = omp_in_parallel() ? 1 : std::min({threads(), blocks, bytes / bytes_worth_a_thread});
  if (n_threads <= 1) return few_rows(x, w, 0, outputs, y, add);
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static)
  for (std::int64_t thread = 0; thread < n_threads; ++thread) {
    const std::int64_t first = blocks * thread / n_threads * outputs_together;
    const std::int64_t last = std::min(outputs, blocks * (thread + 1) / n_threads * outputs_together);
    few_rows(x, w, first, last - first, y, add);
  }
}

std::int64_t onednn_rows() { return onednn_from; }
void set_onednn_rows(std::int64_t rows) { onednn_from = rows; }

}  // namespace photon
