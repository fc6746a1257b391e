// matmul() over packed weights: how many threads, and who computes which panels; making the inputs that products read.
#include <omp.h>

#include <algorithm>
#include <cassert>

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/matmul.h"

namespace photon {
namespace {

constexpr std::int64_t line = 64;  // bytes

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t row_bytes(InputForm form, std::int64_t k) {
  switch (form) {
    case InputForm::f32:
      return ceil_div(k, 2) * 8;
    case InputForm::bf16:
      return ceil_div(k, 2) * 4;
    case InputForm::int8:
      return quant_groups(k) * static_cast<std::int64_t>(sizeof(Int8Group));
  }
  return 0;
}

std::int64_t usable_threads() { return omp_in_parallel() ? 1 : threads(); }

// Waking threads that spin costs 1 us, threads that sleep 8 us.
constexpr std::int64_t microseconds_worth_a_thread = 8;

// What a product takes one thread, roughly: reading the weights or computing, whichever is more.
std::int64_t microseconds(const InputView& x, const PackedWeight& w) {
  constexpr std::int64_t bytes = 20'000, operations = 200'000;  // a microsecond
  return std::max(w.bytes() / bytes, 2 * x.rows * w.outputs * w.k / operations);
}

// Shares `n` units of work, panels or gated pairs of them, among the threads; `in_order(first, last, part)` calls
// part() for each range of units that those numbered first … last - 1 are.
template <class InOrder>
void multiply(const InputView& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue, std::int64_t n,
              std::int64_t microseconds, const InOrder& in_order) {
  assert(x.k == w.k && x.form == input_form(w.type) && y.rows == x.rows);
  if (x.rows == 0 || n == 0) return;
  const std::int64_t panels_of_unit = epilogue == Epilogue::swiglu ? 2 : 1;
  const MatmulCall whole{.type = w.type,
                         .x = x,
                         .panels = w.panels,
                         .n_panels = w.n_panels(),
                         .panel_bytes = panel_bytes(w.type, w.k),
                         .y = y,
                         .epilogue = epilogue};
  const auto some = [&](std::int64_t first, std::int64_t last) {
    MatmulCall part = whole;
    part.panels += first * panels_of_unit * whole.panel_bytes;
    part.n_panels = (last - first) * panels_of_unit;
    part.y.data += first * panel_outputs;
    part.y.cols = std::min(last * panel_outputs, y.cols) - first * panel_outputs;
    kernels().matmul.matmul(part);
  };
  const std::int64_t n_threads = std::min({usable_threads(), n, microseconds / microseconds_worth_a_thread});
  if (n_threads <= 1) return in_order(0, n, some);
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static)
  for (std::int64_t thread = 0; thread < n_threads; ++thread)
    in_order(n * thread / n_threads, n * (thread + 1) / n_threads, some);
}

}  // namespace

InputForm input_form(DType type) {
  switch (type) {
    case DType::f32:
      return InputForm::f32;
    case DType::bf16:
      return kernels().matmul.bf16_inputs;
    case DType::int8:
    case DType::int4:
      return InputForm::int8;
  }
  return {};
}

// row(i, out) writes k floats.
template <class FloatRow>
void Inputs::fill(std::int64_t n, std::int64_t k, InputForm form, FloatRow row) {
  const std::int64_t lines = ceil_div(row_bytes(form, k), line) | 1;
  data_.resize(n, lines * line);
  view_ = {.form = form, .rows = n, .k = k, .data = data_.data(), .stride = lines * line};
  const auto convert = [&](std::int64_t first, std::int64_t last) {
    thread_local Matrix<float> floats;  // one row
    if (form != InputForm::f32) floats.resize(1, k);
    for (std::int64_t i = first; i < last; ++i) {
      std::byte* out = data_.row(i).data();
      float* as_floats = form == InputForm::f32 ? reinterpret_cast<float*>(out) : floats.data();
      const float* x = row(i, std::span(as_floats, static_cast<std::size_t>(k)));
      if (form == InputForm::f32) {
        if (k % 2 != 0) as_floats[k] = 0;
      } else if (form == InputForm::bf16) {
        auto* rounded = reinterpret_cast<bf16*>(out);
        if (k % 2 != 0) rounded[k] = {};
        kernels().to_bf16({x, static_cast<std::size_t>(k)}, {rounded, static_cast<std::size_t>(k)});
      } else {
        kernels().matmul.to_int8(x, reinterpret_cast<Int8Group*>(out), k);
      }
    }
  };
  constexpr std::int64_t inputs_worth_a_thread = 32 << 10;  // some microseconds: waking a thread costs as much
  const std::int64_t n_threads = std::min({usable_threads(), n, n * k / inputs_worth_a_thread});
  if (n_threads <= 1) return convert(0, n);
#pragma omp parallel for num_threads(static_cast <int>(n_threads)) schedule(static)
  for (std::int64_t thread = 0; thread < n_threads; ++thread)
    convert(n * thread / n_threads, n * (thread + 1) / n_threads);
}

void Inputs::assign(MatView<const float> x, InputForm form) {
  fill(x.rows, x.cols, form, [&](std::int64_t i, std::span<float> out) {
    const auto row = x.row(i);
    if (form != InputForm::f32) return row.data();
    std::copy(row.begin(), row.end(), out.begin());
    return static_cast<const float*>(out.data());
  });
}

void Inputs::assign_normed(MatView<const float> x, std::span<const float> weight, float eps, InputForm form) {
  assert(std::ssize(weight) == x.cols);
  fill(x.rows, x.cols, form, [&](std::int64_t i, std::span<float> out) {
    kernels().rms_norm(x.row(i), weight, eps, out);
    return static_cast<const float*>(out.data());
  });
}

void matmul(const InputView& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue) {
  assert(w.gated == (epilogue == Epilogue::swiglu) && y.cols == (w.gated ? w.outputs / 2 : w.outputs));
  const std::int64_t units = ceil_div(y.cols, panel_outputs);  // of panel_outputs columns
  multiply(x, w, y, epilogue, units, microseconds(x, w),
           [](std::int64_t first, std::int64_t last, const auto& part) { part(first, last); });
}

void matmul(const InputView& x, const PackedWeight& w, std::span<const PanelRange> panels, MatView<float> y) {
  assert(!w.gated && y.cols == w.outputs);
  std::int64_t n = 0;
  for (const PanelRange& range : panels) n += range.last - range.first;
  // Panels [first, last) of those that are wanted, counted one after another.
  const auto ranges = [&](std::int64_t first, std::int64_t last, const auto& part) {
    std::int64_t before = 0;
    for (const PanelRange& range : panels) {
      const std::int64_t from = std::max(first - before, std::int64_t{0}), size = range.last - range.first,
                         to = std::min(last - before, size);
      if (from < to) part(range.first + from, range.first + to);
      before += size;
    }
  };
  multiply(x, w, y, Epilogue::set, n, microseconds(x, w) * n / std::max<std::int64_t>(1, w.n_panels()), ranges);
}

}  // namespace photon
