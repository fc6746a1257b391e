// The state of one sequence: per level its units, its encoder's cache and its decoder's.  docs/architecture.md §3.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/text_memory.h"
#include "spec/accounting.h"

namespace photon {

/// A decoder's stream, as it is laid out:  group g = [U_g,1 … U_g,R | content 1 … C], R + C positions a group.
///
///   R = 2, C = 3, group g:   U  U  x1 x2 x3 | U  U  …
///   predicts slot               1  2  3  -    -  1        the row before a unit predicts it
///
/// A `stream` decoder runs all positions; a `chunk` decoder leaves out content C and counts from 0 in each group.
struct GroupLayout {
  explicit GroupLayout(const LevelSpec& level);

  std::int64_t R, C;
  bool stream;
  std::int64_t
      reach;  // positions back that a row's output depends on: n_layers·(w - 1) for a stream, its group for chunk

  std::int64_t period() const { return R + C; }
  std::int64_t start_of(std::int64_t group) const { return group * period(); }
  /// The row that predicts a unit.
  std::int64_t row_of(std::int64_t unit) const { return start_of(unit / C) + R - 1 + unit % C; }
  /// The first group that starts at this row or later, and the first unit that is content there.
  std::int64_t group_from(std::int64_t row) const { return (row + period() - 1) / period(); }
  std::int64_t content_from(std::int64_t row) const;
  /// Where the stack must begin so that every later output from `row` on is exact.
  std::int64_t replay_from(std::int64_t row) const;
  /// Where a `stream` goes on, with the rows before still in its cache, so that `unit` is predicted: a prefix is fed
  /// whole.
  std::int64_t resume_at(std::int64_t unit) const { return unit % C == 0 ? start_of(unit / C) : row_of(unit); }
};

/// Consecutive units of one level, by their absolute index: [first(), end()).
class UnitBuffer {
 public:
  UnitBuffer(std::int64_t first, std::int64_t width) : first_(first), end_(first), width_(width) {}

  std::int64_t first() const { return first_; }
  std::int64_t end() const { return end_; }
  std::int64_t width() const { return width_; }
  /// n units from `unit` on, one after another.  [n·width]
  std::span<const float> at(std::int64_t unit, std::int64_t n = 1) const;
  void append(MatView<const float> units);
  void append(std::span<const float> unit);
  /// Counts n units that nobody will read, nor any before them.
  void skip(std::int64_t n = 1);
  void drop_before(std::int64_t unit);
  void drop_from(std::int64_t unit);

 private:
  std::int64_t first_, end_, width_;
  std::vector<float> values_;
};

struct DecoderState {
  std::vector<KvCache> caches{};  // one; in recgen one for each group that a `chunk` decoder runs at once
  std::int64_t fed = 0;           // rows of the layout before this one are in the cache, or not needed
  std::int64_t exact_from = 0;    // a `stream` decoder that began here or before has exact outputs from this row on

  /// Where it has to begin, or to go on, so that its predictions from `unit` on are exact.
  std::int64_t begin_of(const GroupLayout& layout, std::int64_t unit) const;
  /// `unit` and later ones may be predicted again.
  void take_back_to(const GroupLayout& layout, std::int64_t unit);
};

/// Move-only, copied by fork(): its caches live in the pool, which outlives it.
class Sequence {
 public:
  /// @param spare_tokens  how many of its latest tokens may be taken back at most; bounded caches are larger for it
  Sequence(const Model& model, KvPool& pool, std::int64_t spare_tokens = 0);

  /// The same state; pages are shared until one of the two writes into them.  Its traffic begins at 0.
  Sequence fork() const;
  /// A fork to be kept, not to go on with: without the caches of decoders that have not begun, which hold nothing.  Its
  /// forks are whole.
  Sequence fork_to_keep() const;
  /// Gives this sequence pages of its own for all that it shares.
  void unshare();

  /// Tokens were consumed.
  void advance(std::int64_t n);
  /// hiergen: the last n <= may_take_back() tokens were never consumed, and no later logits asked for.
  void take_back(std::int64_t n);
  std::int64_t spare_tokens() const { return spare_tokens_; }
  /// No more than spare_tokens() before the furthest that was ever consumed.
  std::int64_t may_take_back() const { return n_tokens - earliest_after(0); }
  /// The number of tokens that it may be taken back to once it has consumed n more.
  std::int64_t earliest_after(std::int64_t n) const;

  /// recgen's caches: no encoder below the top, and a cache for each group that a `chunk` decoder runs at once.
  void keep_top_only();

  /// KV bytes that its caches hold now; docs/architecture.md §4 says how many these must be.
  std::int64_t kv_bytes_growing() const;
  std::int64_t kv_bytes_constant() const;
  std::int64_t memory_bytes() const;  // of the growing ones: text and units that are remembered
  KvTraffic kv_traffic() const;
  /// Bytes of its growing caches without the pages that one of the others holds, too.
  std::int64_t kv_bytes_growing_beside(std::span<const Sequence* const> others) const;
  /// The most that it will allocate on its way to `end` tokens; where recgen is to begin at token `begin`, with what
  /// that takes.
  std::int64_t kv_bytes_to_come(Protocol to, std::int64_t begin, std::int64_t end) const;
  /// Visits the pages of all caches.
  void for_each_page(const std::function<void(const std::shared_ptr<KvPool::Page>&)>& visit) const;

  std::int64_t n_tokens = 0;  // consumed so far
  std::int64_t n_predicted =
      0;  // of these and the next one, those before it need no logits any more: they were asked for
  Protocol protocol = Protocol::hiergen;
  /// units[l], l = 0…L: X⁽ˡ⁾ (recgen: X̂⁽ˡ⁾ below the top), as far back as a chunk or a decoder still wants them.  Those
  /// of the top level are conditions: unit -1 is the start latent, or what the vanilla trunk makes of bos.
  std::vector<UnitBuffer> units;
  std::vector<KvCache> encoders;       // encoders[l-1]; of the vanilla model the trunk: its span's, its global_layers'
  std::vector<DecoderState> decoders;  // decoders[l-1]

  /// With decoder_embedding: of each token what the level-1 decoder reads [E_1], where others read X⁽⁰⁾.
  std::optional<UnitBuffer> decoder_tokens;

  /// What the stack that predicts tokens remembers, if it does: all consumed tokens, and keys and values of all
  /// top-level units.
  std::optional<TextMemory> text;
  std::optional<KvCache> remembered_units;

  UnitBuffer& units_of(std::int64_t l) { return units[l]; }
  /// What Decoder_l reads of the units of level l-1.
  UnitBuffer& content_of(std::int64_t l) { return l == 1 && decoder_tokens ? *decoder_tokens : units[l - 1]; }
  KvCache& encoder(std::int64_t l) { return encoders[l - 1]; }
  DecoderState& decoder(std::int64_t l) { return decoders[l - 1]; }

 private:
  struct Copy {};
  Sequence(const Sequence& other, Copy);
  KvCache decoder_cache(std::int64_t l) const;

  const Model* model_;
  KvPool* pool_;
  std::int64_t spare_tokens_ = 0, furthest_ = 0;
};

}  // namespace photon
