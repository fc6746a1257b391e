// recgen, the paper's recursive generation: only the top stream is kept; from its latest unit the decoders unroll a
// whole top-level group on their own outputs, the chunks of tokens in parallel.  docs/architecture.md §3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/hierarchy.h"
#include "engine/hiergen.h"

namespace photon {

/// Picks the token at a position of batch[b] from its logits [V].
using Choose = std::function<std::int32_t(std::size_t b, std::int64_t position, std::span<const float> logits)>;

class Recgen {
 public:
  explicit Recgen(Hierarchy& hierarchy) : hierarchy_(hierarchy) {}

  void start(Sequence& sequence);
  void group(std::span<Sequence* const> batch, const Choose& choose, bool one_by_one);

 private:
  struct Chunk {  // a group of level l on its way, of which slots < j are known
    std::size_t b = 0;
    Sequence* sequence = nullptr;
    KvCache* cache = nullptr;
    std::int64_t first_unit = 0, start = 0;  // of level l-1; the row of its prefix in the cache
    MatView<const float> prefix{};           // U⁽ˡ⁾ as [R, E]
    MatView<float> content{};          // X̂⁽ˡ⁻¹⁾ [C, D_{l-1}], level 1: what it reads of the chosen tokens
    std::span<std::int32_t> tokens{};  // level 1: the chosen ones [C]
  };

  MatView<const float> unroll(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> conds,
                              const Choose& choose, bool one_by_one);
  void take_chunks(std::int64_t l, std::span<Sequence* const> batch, MatView<const float> prefixes, std::int64_t first,
                   std::int64_t n);
  void feed_prefix(std::int64_t l, const Chunk& chunk);
  void feed_content(std::int64_t l, const Chunk& chunk, std::int64_t j);
  void feed(const Chunk& chunk, std::int64_t position, std::span<const float> unit, const Past& past);
  void keep_tokens(MatView<const float> x, std::int64_t j, const Choose& choose);
  void append_tokens(Sequence& sequence, std::span<const std::int32_t> tokens, MatView<const float> content);

  Hierarchy& hierarchy_;
  std::vector<Chunk> chunks_;
  std::vector<Hierarchy::DecoderRow> rows_;
  std::vector<Hierarchy::Units> conditions_;
  std::vector<Matrix<float>> unrolled_;  // by level: what a batch's groups were decoded to [n, content_width]
  std::vector<std::int32_t> tokens_;     // of the batch's groups
  Matrix<float> embedded_;               // X⁽⁰⁾ of one sequence's tokens, where the decoder reads another table
};

}  // namespace photon
