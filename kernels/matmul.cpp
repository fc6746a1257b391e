// matmul(): the kernels of this CPU for few rows, where reading the weights is the cost; oneDNN for many, where
// arithmetic is.
#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <dnnl.hpp>
#include <map>
#include <optional>
#include <vector>

#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t default_onednn_rows = 128;  // measured on Zen 4: equal from 64 to 256 rows, 10 % faster above
std::atomic<std::int64_t> onednn_from{default_onednn_rows};

void few_rows(MatView<const float> x, const Weight& w, std::int64_t first, std::int64_t n, MatView<float> y, bool add) {
  const MatView<float> part{y.data + first, y.rows, n, y.stride};  // outputs [first, first + n)
  if (w.type == Weight::Type::f32) return kernels().matmul_f32(x, w.f32.slice(first, n), part, add);
  kernels().matmul_bf16(x, w.b16.slice(first, n), part, add);
}

// oneDNN's executable for one shape; empty where oneDNN has none for this CPU.
using Primitive = std::optional<dnnl::matmul>;

struct Shape {
  Weight::Type type = Weight::Type::f32;
  bool add = false;
  std::int64_t n = 0, k = 0, o = 0, x_stride = 0, w_stride = 0, y_stride = 0, n_threads = 0;
  auto operator<=>(const Shape&) const = default;

  dnnl::memory::data_type inputs() const {
    return type == Weight::Type::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  }
  dnnl::memory::desc x() const { return {{n, k}, inputs(), {x_stride, 1}}; }
  dnnl::memory::desc w() const { return {{k, o}, inputs(), {1, w_stride}}; }  // read in place, transposed
  dnnl::memory::desc y() const { return {{n, o}, dnnl::memory::data_type::f32, {y_stride, 1}}; }
};

// One per thread: oneDNN shares scratch memory between the primitives that one thread created.
struct OneDnn {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Shape, Primitive> primitives;
  std::vector<bf16> x;  // [n, k]

  const Primitive& primitive(const Shape& shape) {
    constexpr std::size_t most_primitives = 256;  // prompts of ever new lengths: start over
    if (const auto found = primitives.find(shape); found != primitives.end()) return found->second;
    if (primitives.size() >= most_primitives) primitives.clear();
    Primitive made;
    try {
      dnnl::primitive_attr attributes;
      if (shape.add) {
        dnnl::post_ops sum;
        sum.append_sum(1.0f);
        attributes.set_post_ops(sum);
      }
#if DNNL_VERSION_MAJOR >= 3
      made.emplace(dnnl::matmul::primitive_desc(engine, shape.x(), shape.w(), shape.y(), attributes));
#else
      const dnnl::matmul::desc operation(shape.x(), shape.w(), shape.y());
      made.emplace(dnnl::matmul::primitive_desc(operation, attributes, engine));
#endif
    } catch (const dnnl::error& error) {
      if (error.status != dnnl_unimplemented) throw;
    }
    return primitives.emplace(shape, std::move(made)).first->second;
  }
};

// oneDNN takes the thread count from the calling thread's OpenMP setting.
struct ScopedThreads {
  explicit ScopedThreads(std::int64_t n) : before(omp_get_max_threads()) { omp_set_num_threads(static_cast<int>(n)); }
  ~ScopedThreads() { omp_set_num_threads(before); }
  ScopedThreads(const ScopedThreads&) = delete;
  ScopedThreads& operator=(const ScopedThreads&) = delete;
  int before;
};

// False where oneDNN cannot: y is then untouched.
bool many_rows(MatView<const float> x, const Weight& w, MatView<float> y, bool add) {
  const bool is_f32 = w.type == Weight::Type::f32;
  // oneDNN rounds x to bf16.  Where our kernels do not, a row must not be rounded just because it has company.
  if (!is_f32 && !kernels().bf16_rounds_x) return false;
  thread_local OneDnn onednn;
  const ScopedThreads scoped(threads());
  const Shape shape{.type = w.type,
                    .add = add,
                    .n = x.rows,
                    .k = x.cols,
                    .o = w.rows(),
                    .x_stride = is_f32 ? x.stride : x.cols,
                    .w_stride = is_f32 ? w.f32.stride : w.b16.stride,
                    .y_stride = y.stride,
                    .n_threads = threads()};
  const Primitive& primitive = onednn.primitive(shape);
  if (!primitive) return false;
  const void* inputs = x.data;
  if (!is_f32) {
    onednn.x.resize(static_cast<std::size_t>(x.rows * x.cols));
    for (std::int64_t i = 0; i < x.rows; ++i)
      kernels().to_bf16(x.row(i), MatView<bf16>{onednn.x.data(), x.rows, x.cols, x.cols}.row(i));
    inputs = onednn.x.data();
  }
  const void* weights = is_f32 ? static_cast<const void*>(w.f32.data) : w.b16.data;
  // oneDNN's handles are not const; it only reads sources and weights.
  primitive->execute(onednn.stream,
                     {{DNNL_ARG_SRC, dnnl::memory(shape.x(), onednn.engine, const_cast<void*>(inputs))},
                      {DNNL_ARG_WEIGHTS, dnnl::memory(shape.w(), onednn.engine, const_cast<void*>(weights))},
                      {DNNL_ARG_DST, dnnl::memory(shape.y(), onednn.engine, y.data)}});
  onednn.stream.wait();
  return true;
}

}  // namespace

void matmul(MatView<const float> x, const Weight& w, MatView<float> y, bool add) {
  assert(x.cols == w.cols() && y.rows == x.rows && y.cols == w.rows());
  if (x.rows == 0 || w.rows() == 0) return;
  if (x.rows >= onednn_from && many_rows(x, w, y, add)) return;

  // About 6 us of reading.  Waking threads that spin costs 1 us, threads that sleep 8 us.
  constexpr std::int64_t bytes_worth_a_thread = 128 << 10;
  constexpr std::int64_t outputs_together = 24;  // a multiple of what every kernel computes at once: no tails inside
  const std::int64_t outputs = w.rows();
  const std::int64_t bytes = outputs * w.cols() * (w.type == Weight::Type::f32 ? 4 : 2);
  const std::int64_t passes =
      std::max<std::int64_t>(1, x.rows / 4);  // reading is free from the second pass, not so arithmetic
  const std::int64_t blocks = (outputs + outputs_together - 1) / outputs_together;
  const std::int64_t n_threads =
      omp_in_parallel() ? 1 : std::min({threads(), blocks, bytes * passes / bytes_worth_a_thread});
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
