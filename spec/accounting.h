// What a model costs: exact parameters, FLOPs, weight traffic and KV bytes from its spec.  docs/architecture.md §4.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "spec/spec.h"

namespace photon {

/// How tokens are generated, docs/architecture.md §3.  With at most one level, recgen is hiergen.
enum class Protocol {
  hiergen,  ///< exact: every finished chunk is encoded bottom-up
  recgen,   ///< the decoders unroll on their own outputs; only the top stream is kept
};
std::string_view to_string(Protocol protocol);   // "hiergen", "recgen"
Protocol parse_protocol(std::string_view text);  ///< @throws InputError for any other word

// ---- parameters ----

struct Parameters {
  std::int64_t total = 0;      // elements of tensors(spec)
  std::int64_t embedding = 0;  // embed.weight
  std::int64_t head = 0;       // lm_head.weight; 0 if tied
  std::vector<std::pair<std::string, std::int64_t>>
      parts;  // the rest, by place: "level 1 encoder", "level 1 chunker", …
};
Parameters count_parameters(const Spec& spec);

// ---- KV caches ----

/// The longest context that can be asked for: up to here no valid spec overflows.
inline constexpr std::int64_t max_context = std::int64_t{1} << 26;

/// Positions of a cache page: `global` caches grow by whole pages.
inline constexpr std::int64_t kv_page_units = 16;

/// Bytes of one cache position of a stack: keys and values of all its layers.
std::int64_t kv_bytes_per_position(const StackSpec& stack, DType kv);

/// Units of level l that are held after T tokens: T / C_≤l complete ones.  For the vanilla model (l = 0): the trunk's
/// positions, T + 1 with the bos that it prepends.
std::int64_t units_held(const Spec& spec, std::int64_t l, std::int64_t T);

/// A text that is remembered: token ids of 2 bytes, of 4 where the vocabulary has more than 2¹⁶, in pages of so many.
inline constexpr std::int64_t text_page_tokens = 512;
std::int64_t text_bytes_per_token(const Spec& spec);  // 0 where no block reads the text

/// How many positions back what a trunk's position makes of its token depends on: n_layers·(w - 1) where all blocks
/// have a window of w.  Whoever only wants what follows a text runs no more of it.
std::int64_t trunk_reach(const Spec& spec);
/// Bytes of a top-level unit in the memory of units; 0 where no block reads them.
std::int64_t memory_bytes_per_unit(const Spec& spec, DType kv);

/// Growth per token of context, without page rounding: Σ kv(stack)/C_≤l over the growing caches that the protocol
/// keeps, and the memory's text and units, once for all blocks that read them.
double kv_bytes_per_token(const Spec& spec, Protocol protocol, DType kv);

/// Positions that bounded caches have beside those that a row sees, so that the last n tokens can be taken back: of the
/// encoder of level l (l = 0: the trunk), and of the decoder of level l, whose laid-out rows these tokens have reached.
std::int64_t spare_encoder_positions(const Spec& spec, std::int64_t l, std::int64_t n);
std::int64_t spare_decoder_positions(const Spec& spec, std::int64_t l, std::int64_t n);

/// Bytes of the caches that do not grow: bounded encoders, a trunk with a window, and decoders.  recgen keeps no
/// encoder below the top, and one cache for each of the ∏_{k>l} C_k rows that a `chunk` decoder of level l runs at
/// once.
/// @param take_back  tokens that may be taken back
std::int64_t kv_bytes_constant(const Spec& spec, Protocol protocol, DType kv, std::int64_t take_back = 0);

/// What one sequence of T tokens allocates: the constant bytes and whole pages of every growing cache.
std::int64_t kv_bytes_allocated(const Spec& spec, Protocol protocol, std::int64_t T, DType kv,
                                std::int64_t take_back = 0);

/// Of these, the pages that T tokens fill: nobody writes into them any more, so sequences that begin with these tokens
/// share them.
std::int64_t kv_bytes_filled(const Spec& spec, Protocol protocol, std::int64_t T, DType kv);

/// The most that n continuations of a prompt hold at any moment: filled pages of the prompt once, everything else each
/// for itself.  recgen: with the pages of the lower encoders, which consume the prompt until recgen begins.  Where the
/// number does not fit into int64, the largest there is.
std::int64_t kv_bytes_at_most(const Spec& spec, Protocol protocol, std::int64_t n_prompt, std::int64_t n_tokens,
                              std::int64_t n_continuations, DType kv);

/// KV bytes read per generated token at context T, mean over a top-level group.
struct KvRead {
  double growing = 0;  // global caches: a unit of level l reads T/C_≤l positions once in C_≤l tokens: kv·T/C_≤l²; and
                       // the memory, which each row of the stack reads once a reading block
  double bounded = 0;  // the other caches; each row reads the positions that its span shows it, itself included
  double total() const { return growing + bounded; }
};
KvRead kv_bytes_read(const Spec& spec, Protocol protocol, std::int64_t T, DType kv);

// ---- work ----

/// Weight parameters read from memory per generated token of one sequence, mean over a top-level group.  Every step of
/// a stack reads it once, whatever the number of its rows: a decoder takes C steps a group (the prefix goes with the
/// first) and recgen runs all groups of a `chunk` decoder in the same C steps.  The token embeddings, and a projection
/// to the decoder's width (content_proj of level 1), are look-ups and not counted.  A block that reads the text reads
/// the tables of its keys and values, (context + 1) times the vocabulary: at most, since ids that do not occur are left
/// out.
double weights_read_per_token(const Spec& spec, Protocol protocol);

/// Floating-point operations per token; a multiply-add is two.  Norms, RoPE and activations are not counted.
struct Flops {
  double matmul = 0;     // with weights
  double attention = 0;  // QKᵀ and AV over the positions that are attended to
  double total() const { return matmul + attention; }
};
/// Mean over a prompt of T tokens: chunkers and encoders (or the trunk) only.  The head runs once per prompt and
/// `stream` decoders replay a bounded number of groups; neither is counted.
Flops prefill_flops(const Spec& spec, std::int64_t T);
/// Mean over a top-level group at context T.  A `chunk` decoder runs R + C - 1 positions a group, a `stream` decoder R
/// + C.
Flops decode_flops(const Spec& spec, Protocol protocol, std::int64_t T);
/// Teacher-forced forward pass, mean over a sequence of T tokens.  Forward and backward together take three times as
/// much.
Flops training_flops(const Spec& spec, std::int64_t T);
inline constexpr double forward_and_backward = 3.0;

// ---- comparison ----

/// The vanilla model of nearest parameter count built from the level-1 decoder's block: vocabulary, tying and block are
/// the same, the embedding is as wide as the block, and the number of layers is what fits best, at most max_layers.  A
/// vanilla spec matches itself, a trunk with a window the same trunk with a global span.
Spec matching_vanilla(const Spec& spec);

}  // namespace photon
