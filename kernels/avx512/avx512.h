// What this folder defines: the parts of the table for AVX-512 with BF16 and VNNI (Zen 4, Cooper Lake, Sapphire Rapids
// and later).
#pragma once

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace photon::avx512 {

extern const RowKernels rows;
extern const MatmulKernels matmul;
extern const AttentionKernels attention;
extern const MemoryKernels memory;
extern const PeakKernels peak;
extern const TrainingKernels training;

// Members of those parts, for tables that have something better for the others.
void multiply(const MatmulCall& call);
void to_int8(const float* x, Int8Group* groups, std::int64_t k);
std::uint64_t read(const void* data, std::int64_t n_blocks, bool ahead);
float fma_f32(std::int64_t n_steps);
float dot_int8(std::int64_t n_steps);
inline constexpr std::int64_t peak_registers = 10;  // of sums: more than latency times throughput
inline constexpr std::int64_t fma_operations = peak_registers * 16 * 2, dot_int8_operations = peak_registers * 64 * 2;

}  // namespace photon::avx512
