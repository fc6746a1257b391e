// Attention to a text whose keys and values depend on token ids alone: scores are sums of look-ups in tables that a
// query has made of the vocabulary, values a histogram of the weights by id times a table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace photon {

/// Query heads that read together: a look-up finds the scores of all of them side by side.
inline constexpr std::int64_t text_heads = 4;

/// A row's queries of up to 4 heads over the entries [first, last) of a text.  Entry j has the ids t_j, t_{j-1} …, of
/// which those before the first token count nothing.
///
///   score_j = Σ_o scores[o][t_{j-o}] - rate·ln(1 + predicted - j),   out = Σ_j exp(score_j - top) values[t_j]
struct TextCall {
  std::int64_t vocab_size = 0, context = 0, head_dim = 0, n_heads = 0;
  const std::int32_t* ids = nullptr;  // [n_ids] ascending: all that occur among the entries and their contexts
  std::int64_t n_ids = 0;
  const float* scores[text_heads] = {};  // of a head: [context][V], `score_stride` apart; read at `ids` alone
  std::int64_t score_stride = 0;
  const std::byte* const* pages = nullptr;  // of the text from its first token on, page_tokens ids each
  std::int64_t page_tokens = 0, id_bytes = 0;
  std::int64_t first = 0, last = 0;      // first < last
  std::int64_t predicted = 0;            // >= last
  const float* log_distances = nullptr;  // [predicted - first + 1]: ln(1 + d); null where no rate is given
  float rates[text_heads] = {};
  DType type = DType::f32;                   // of the values: f32 or bf16
  const std::byte* values[text_heads] = {};  // [V][head_dim]
  float* table = nullptr;                    // scratch [context][V + 1][4]; row V of each is zero
  float* weights = nullptr;                  // scratch [V + 1][4], zeros before and after
  std::int32_t* weighed = nullptr;           // scratch [n_ids]
  float* out[text_heads] = {};               // [head_dim]
  float* top = nullptr;                      // [4]; beyond n_heads unspecified
  float* sum = nullptr;                      // [4]: Σ exp(score - top)
};

}  // namespace photon
