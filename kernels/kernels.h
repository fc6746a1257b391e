// The arithmetic of a Transformer block on the CPU: one table of functions per instruction set, chosen at run time.
// Every function of a table throws nothing, allocates nothing, runs on the calling thread, handles any size (tails
// included) and any alignment, and may be called from several threads at once.  Outputs do not alias inputs unless it
// says so.
#pragma once

#include <cstdint>
#include <span>

#include "base/bf16.h"
#include "base/matrix.h"

namespace photon {

struct TextCall;
struct RowKernels;
struct MatmulKernels;
struct AttentionKernels;
struct MemoryKernels;
struct PeakKernels;
struct TrainingKernels;

/// All that one instruction set computes.  References, down to every function: what is missing does not compile.
struct Kernels {
  const char* name;     // "scalar", "avx2", "avx512_bf16", "amx_bf16"
  bool (&runs_here)();  // asks cpuid and the operating system

  const RowKernels& rows;             // isa.h; for the members below
  const MatmulKernels& matmul;        // isa.h; for matmul.cpp
  const AttentionKernels& attention;  // isa.h; for attention.cpp
  const MemoryKernels& memory;        // isa.h, text_memory.h
  const PeakKernels& peak;            // isa.h; for ceilings.cpp
  const TrainingKernels& training;    // training.h; for train/

  /// y = x / sqrt(mean(x²) + eps) ∘ w, per row of length w.size(); y may alias x.
  void rms_norm(std::span<const float> x, std::span<const float> w, float eps, std::span<float> y) const;
  void to_bf16(std::span<const float> x, std::span<bf16> y) const;  ///< as to_bf16(float) of base/bf16.h
  void read_text(const TextCall& call) const;                       ///< text_memory.h
  /// log Σ exp(x), stable for any finite x; -∞ where x is empty or all -∞
  float log_sum_exp(std::span<const float> x) const;
};

std::span<const Kernels> all_kernels();  ///< best first, "scalar" always last
/// The best table that runs here, or the one PHOTON_ISA names.
/// @throws InputError if PHOTON_ISA names an unknown table or one that this CPU cannot run.
const Kernels& kernels();

/// Number of OpenMP threads that matmul() and callers use; default usable_cpus().  On a machine that others use too,
/// start the program with OMP_WAIT_POLICY=passive: threads that spin for one that is not running lose more than they
/// gain.
void set_threads(std::int64_t n);
std::int64_t threads();

}  // namespace photon
