// Weight matrices as the kernels read them: quantised or not, packed once at load by panels of 16 outputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bf16.h"
#include "base/dtype.h"
#include "weights/quantized_row.h"

namespace photon {

/// Outputs of a panel: one vector register of float32 sums holds them all, so no product needs a horizontal sum.
inline constexpr std::int64_t panel_outputs = 16;

/// A matrix w [outputs, k] for y = x wᵀ, borrowed.  Panel p holds outputs 16p … 16p+15 (absent ones are zeros), 64-byte
/// aligned, read from front to back by every product:
///
///   f32   [k][16]
///   bf16  [⌈k/2⌉][16][2]    pairs of inputs, as the dot product instruction wants them
///   int8  [groups][8][16][4] bytes q + 128, then scales [groups][16] bf16
///   int4  [groups][4][16][4] bytes, then scales [groups][16] bf16; byte (i, o, j) holds q + 8 of input 4i + j in its
///         low half and of input 16 + 4i + j in its high half
///
/// Inputs beyond k are zeros.  Rows of several matrices may stand one after another (q, k and v read the same input).
/// A gated pair alternates: panel 2p of the gate, panel 2p + 1 of up, both padded to whole panels.
struct PackedWeight {
  DType type = DType::f32;
  std::int64_t outputs = 0, k = 0;  // outputs: of a gated pair both together
  const std::byte* panels = nullptr;
  bool gated = false;

  std::int64_t n_panels() const;
  std::int64_t bytes() const;  // of all panels: what one product reads
};
std::int64_t panel_bytes(DType type, std::int64_t k);  // a multiple of 64

/// Writes one panel from 16 rows [k], null for absent ones: f32 or bf16 (rounded to nearest even).
void pack_panel(DType type, const std::array<const float*, panel_outputs>& rows, std::int64_t k, std::byte* panel);
/// int8 and int4, from rows that quantize_row() or a file made; values null for absent rows.
void pack_panel(DType type, const std::array<QuantizedRow, panel_outputs>& rows, std::int64_t k, std::byte* panel);

}  // namespace photon
