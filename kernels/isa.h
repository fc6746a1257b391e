// What the folder of an instruction set implements, part by part, over plain pointers and structs; training's fused
// operations: training.h.  A set that has nothing better for a part borrows another's, in its row of the list in
// kernels.cpp.
//
// Why not over std::span and MatView's members: a file built with -mavx2 that calls an inline function of a shared
// header may emit its own copy of it, and the linker keeps one copy for the whole program, perhaps the AVX one, which
// then crashes older CPUs.  So the ISA files call nothing but intrinsics, builtins and what is internal to them: their
// own anonymous namespace and those of the headers that only they include.  The files beside this one, built without
// -m flags, unpack the spans, check the shapes and ask cpuid.  The tests kernels_isa_symbols_* hold the object files to
// it.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/text_memory.h"

namespace photon {

/// One row of floats (kernels.h).
struct RowKernels {
  void (&rms_norm)(const float* x, const float* w, float eps, float* y, std::int64_t n);
  void (&to_bf16)(const float* x, bf16* y, std::int64_t n);
  float (&log_sum_exp)(const float* x, std::int64_t n);
};

/// One call of matmul() (matmul.h) for some consecutive panels of a weight and the columns of y that they make.
struct MatmulCall {
  DType type = DType::f32;
  InputView x{};
  const std::byte* panels = nullptr;  // [n_panels, panel_bytes]
  std::int64_t n_panels = 0, panel_bytes = 0;
  MatView<float> y{};
  Epilogue epilogue = Epilogue::set;
};

struct MatmulKernels {
  InputForm bf16_inputs;  // what products with bf16 weights read
  void (&matmul)(const MatmulCall& call);
  void (&to_int8)(const float* x, Int8Group* groups, std::int64_t k);
};

/// One call of attend() (attention.h).
struct AttendCall {
  DType type = DType::f32;
  std::int64_t head_dim = 0;
  MatView<const float> q{};               // [n, G*h]
  const std::int64_t* visible = nullptr;  // [n]
  const KvRun* runs = nullptr;            // [n_runs]
  std::int64_t n_runs = 0;
  MatView<float> out{};  // [n, G*h]
  // Where others are to join the softmax: its largest score and Σ exp(score - top) of each query [n, G]; no data: not
  // asked for.
  MatView<float> top{}, sum{};
};

struct AttentionKernels {
  std::int64_t largest_rounded_head;  // up to it, queries are rounded as the cache is (bf16, int8)
  bool rounds_weights;                // bf16 caches: the softmax's weights too
  void (&attend)(const AttendCall& call);
  void (&rotate)(MatView<const float> cos_sin, std::int64_t head_dim, MatView<float> x);
};

struct MemoryKernels {
  void (&read_text)(const TextCall& call);  // text_memory.h
};

/// Loops that do nothing but read, or nothing but multiply and add: what the machine can do at most (ceilings.h).
struct PeakKernels {
  struct Loop {
    std::int64_t operations;             // of one step; a multiply-add is two
    float (&run)(std::int64_t n_steps);  // returns what the compiler must not leave out
  };

  // Reads n blocks of 4 KiB; `ahead`: fetches the next ones early, which pays beyond the second-level cache.
  std::uint64_t (&read)(const void* data, std::int64_t n_blocks, bool ahead);
  Loop f32, bf16, int8;
};
inline constexpr std::int64_t peak_block_bytes = 4096;

}  // namespace photon
