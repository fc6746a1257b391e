// The arithmetic of a Transformer block on the CPU: one table of functions per instruction set, chosen at run time.
// Every function of a table is noexcept, allocates nothing, runs on the calling thread, handles any size (tails
// included) and any alignment, and may be called from several threads at once.  Outputs do not alias inputs unless it
// says so.
#pragma once

#include <cstdint>
#include <span>

#include "base/bf16.h"
#include "base/matrix.h"

namespace photon {

/// A run of consecutive cached positions: keys and values row-major [n, K*h], `stride` elements from row to row.
template <class T>
struct OldKvRun {
  const T* k = nullptr;
  const T* v = nullptr;
  std::int64_t n = 0, stride = 0;
};

/// Query heads of one row against its visible positions.  q, out [H*h]; query head i reads kv head i / (H/K).
struct AttendShape {
  std::int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
};

struct AttentionIsa;
struct MatmulIsa;

struct Kernels {
  const char* name;     // "scalar", "avx2", "avx512_bf16"
  bool (*runs_here)();  // asks cpuid

  // y [n, o] = x [n, k] · w [o, k]ᵀ, or += where add.  An output depends neither on the other rows of x nor on the
  // other outputs, bit for bit.  bf16 weights: x is rounded to bf16 or not as the table says (bf16_rounds_x); sums are
  // float32.
  void (*matmul_f32)(MatView<const float> x, MatView<const float> w, MatView<float> y, bool add);
  void (*matmul_bf16)(MatView<const float> x, MatView<const bf16> w, MatView<float> y, bool add);
  bool bf16_rounds_x;

  // y = x / sqrt(mean(x²) + eps) ∘ w, per row of length w.size(); y may alias x.
  void (*rms_norm)(std::span<const float> x, std::span<const float> w, float eps, std::span<float> y);
  // out = softmax(q Kᵀ / sqrt(h)) V over all runs in order, per head; online softmax in float32, scores never
  // materialise. At least one position.  Where one run ends and the next begins changes no bit.
  void (*attend_f32)(const AttendShape& shape, std::span<const float> q, std::span<const OldKvRun<float>> runs,
                     std::span<float> out);
  void (*attend_bf16)(const AttendShape& shape, std::span<const float> q, std::span<const OldKvRun<bf16>> runs,
                      std::span<float> out);
  // gate = silu(gate) ∘ up, within a few ulp; silu(x) is 0 below -88, where e^-x leaves float32
  void (*swiglu)(std::span<float> gate, std::span<const float> up);
  void (*to_bf16)(std::span<const float> x, std::span<bf16> y);  // as to_bf16(float) of base/bf16.h
  // log Σ exp(x), stable for any finite x; -∞ where x is empty or all -∞
  float (*log_sum_exp)(std::span<const float> x);

  const AttentionIsa* attention;  // isa.h; for attention.cpp
  const MatmulIsa* matmul;        // isa.h; for product.cpp
};

std::span<const Kernels* const> all_kernels();  ///< best first, "scalar" always last
/// The best table that runs here, or the one PHOTON_ISA names.
/// @throws InputError if PHOTON_ISA names an unknown table or one that this CPU cannot run.
const Kernels& kernels();

/// A weight matrix [o, k] in one of the storage types.
struct Weight {
  enum class Type { f32, bf16 };
  Type type = Type::f32;
  MatView<const float> f32{};
  MatView<const bf16> b16{};
  std::int64_t rows() const { return type == Type::f32 ? f32.rows : b16.rows; }
  std::int64_t cols() const { return type == Type::f32 ? f32.cols : b16.cols; }
};

/// y [n, o] = x [n, k] wᵀ (or +=), split over threads() OpenMP threads by outputs (on the calling thread alone where
/// that is a parallel region's or the product is small).  Below onednn_rows() rows, and where oneDNN has nothing for
/// this CPU, the kernels of `kernels()` compute it: a row's result then depends neither on its batch nor on the thread
/// count, bit for bit. From onednn_rows() on oneDNN does (bf16 weights: only where the kernels round x too).  It sums
/// the same products in another order: at k = 1664 and outputs of rms 0.8 the largest difference of 425,984 outputs was
/// 4e-6.  With oneDNN 2.6 on Zen 4 a row was the same for any batch of 1 to 256 and 1 to 4 threads, bit for bit; oneDNN
/// does not promise that.
void matmul(MatView<const float> x, const Weight& w, MatView<float> y, bool add = false);
/// Row count from which matmul() uses oneDNN.
std::int64_t onednn_rows();
void set_onednn_rows(std::int64_t rows);  // tests and benchmarks: 0 = always, INT64_MAX = never

/// Rotates x [n, H*h] in place by absolute positions (rotate-half: pairs (i, i + ⌈h/2⌉); the middle element of odd h
/// stays). Frequencies theta^(-2i/h), computed per call in double: no table, no maximal position.
void rope(std::span<const std::int64_t> positions, double theta, std::int64_t head_dim, MatView<float> x);

/// Number of OpenMP threads that matmul() and callers use; default usable_cpus().  On a machine that others use too,
/// start the program with OMP_WAIT_POLICY=passive: threads that spin for one that is not running lose more than they
/// gain.
void set_threads(std::int64_t n);
std::int64_t threads();

}  // namespace photon
