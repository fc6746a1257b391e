// What an instruction set's file implements: the operations of kernels.h over plain pointers and structs.
//
// Why not over std::span and MatView's members: a file built with -mavx2 that calls an inline function of a shared
// header may emit its own copy of it, and the linker keeps one copy for the whole program, perhaps the AVX one, which
// then crashes older CPUs.  So the ISA files call nothing but intrinsics, builtins and their own anonymous namespace;
// kernels.cpp, built without -m flags, unpacks the spans, checks the shapes and asks cpuid.  The test
// kernels_isa_symbols holds the object files to it.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "kernels/matmul.h"

namespace photon {

struct Isa {
  void (*rms_norm)(const float* x, const float* w, float eps, float* y, std::int64_t n);
  void (*to_bf16)(const float* x, bf16* y, std::int64_t n);
  float (*log_sum_exp)(const float* x, std::int64_t n);
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
};

struct AttentionIsa {
  void (*attend)(const AttendCall& call);
  void (*rotate)(MatView<const float> cos_sin, std::int64_t head_dim, MatView<float> x);
};

extern const AttentionIsa scalar_attention;
#ifdef PHOTON_X86
extern const AttentionIsa avx2_attention, avx512_attention;
#endif

/// One call of matmul() (matmul.h) for some consecutive panels of a weight and the columns of y that they make.
struct MatmulCall {
  DType type = DType::f32;
  InputView x{};
  const std::byte* panels = nullptr;  // [n_panels, panel_bytes]
  std::int64_t n_panels = 0, panel_bytes = 0;
  MatView<float> y{};
  Epilogue epilogue = Epilogue::set;
};

struct MatmulIsa {
  InputForm bf16_inputs;  // what products with bf16 weights read
  void (*matmul)(const MatmulCall& call);
  void (*to_int8)(const float* x, Int8Group* groups, std::int64_t k);
};

extern const MatmulIsa scalar_matmul;
#ifdef PHOTON_X86
extern const MatmulIsa avx2_matmul, avx512_matmul;
#endif

extern const Isa scalar_isa;
#ifdef PHOTON_X86
extern const Isa avx2_isa, avx512_bf16_isa;
#endif

}  // namespace photon
