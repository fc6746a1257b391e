// What a model is: the family of vanilla (L = 0), Block Transformer (L = 1) and PHOTON (L >= 2) models as one value.
// docs/architecture.md §2 defines the mathematics, docs/model-format.md the config.json that is parsed here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace photon {

inline constexpr std::int64_t max_levels = 8, max_layers = 1024;  // of a model, of a stack

/// Which earlier positions of its stream a position attends to (itself always included).
struct Span {
  enum class Kind {
    global,  ///< all of them; encoders and trunk
    window,  ///< the last `size` units; encoders below the top, trunk
    block,   ///< those in its own aligned block of `size` units; encoders below the top
    chunk,   ///< its group's prefix and earlier content, R + C - 1 positions; decoders
    stream,  ///< groups laid out one after another, [U_g ; all C contents of g], the last `size` positions; decoders
  };
  Kind kind = Kind::global;
  std::int64_t size = 0;  // window, block, stream: >= 1; otherwise 0
  bool operator==(const Span&) const = default;

  bool has_size() const { return kind == Kind::window || kind == Kind::block || kind == Kind::stream; }
};

/// What a stack that predicts tokens asks of the past besides its own span: everything before the top-level group of a
/// row (L = 0: before the token that it predicts), in one softmax with the span.  docs/architecture.md §2.
struct MemorySpec {
  enum class Kind {
    text,   ///< keys and values are functions of token ids alone: the cache is the text
    units,  ///< keys and values are projections of the top level's units
  };
  Kind kind = Kind::text;
  std::int64_t context = 0;            // text: tokens that a key is made of, the last of them its own; units: 0
  std::int64_t n_kv_heads = 0;         // K_m, a divisor of the stack's n_heads; as wide as its heads
  std::vector<std::int64_t> layers{};  // blocks that read it, from 0, ascending
  bool recency = false;                // text: scores fall with the logarithm of the distance, as fast as is learned
  bool rope = false;                   // units: keys are rotated at the last row of their group's layout
  bool operator==(const MemorySpec&) const = default;

  bool is_read_by(std::int64_t layer) const;
};

/// One causal Transformer stack: pre-RMSNorm, RoPE (rotate-half), SwiGLU, no biases, final RMSNorm.
struct StackSpec {
  std::int64_t d_model = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, d_ff = 0;
  double rope_theta = 10000.0;
  Span span{};
  std::vector<MemorySpec> memory{};           // level-1 decoder and trunk: none, one, or one of each kind
  std::vector<std::int64_t> global_layers{};  // trunk with a window: blocks that see everything, from 0, ascending
  bool operator==(const StackSpec&) const = default;

  std::int64_t q_width() const { return n_heads * head_dim; }      // H*h
  std::int64_t kv_width() const { return n_kv_heads * head_dim; }  // K*h
  const MemorySpec* memory_of(MemorySpec::Kind kind) const;        // null: it reads none of that kind
  bool is_global(std::int64_t layer) const;                        // one of global_layers
  std::int64_t n_global_before(std::int64_t layer) const;          // of global_layers
  Span span_of(std::int64_t layer) const;                          // of a block
  /// What has a cache of its own, each as a stack: the blocks with the stack's span, then those of global_layers.
  std::vector<StackSpec> by_cache() const;
};

enum class Chunker {
  concat,  ///< A_g is the concatenation itself; needs C_l·D_{l-1} = D_l
  linear,  ///< A_g = W · concatenation
};

/// Level l: its encoder over units of level l and its decoder down to units of level l-1.
struct LevelSpec {
  std::int64_t chunk_size = 0;     // C_l >= 2
  std::int64_t converter_len = 0;  // R_l >= 1
  Chunker chunker = Chunker::linear;
  StackSpec encoder, decoder;
  bool converter_bias = false;                      // U_g = Converter(cond_g) + bias
  bool chunker_bias = false, chunker_norm = false;  // linear only: A_g = W · RMSNorm(concatenation) + bias
  bool operator==(const LevelSpec&) const = default;
};

struct Spec {
  std::int64_t vocab_size = 0, d_embed = 0;
  double norm_eps = 1e-5;
  std::int64_t bos_token_id = 1, eos_token_id = 2;
  bool tie_embeddings = false;     // lm_head = embed; needs d_embed = width of the last stack
  bool decoder_embedding = false;  // the content of the level-1 decoder comes from a table of its own, as wide as it is
  bool learned_start = true;       // false: what the first group is conditioned on is zero, and not in the file
  std::vector<LevelSpec> levels;   // levels[0] is level 1; empty for the vanilla model
  std::optional<StackSpec> trunk;  // the vanilla model's only stack; nullopt where there are levels
  bool operator==(const Spec&) const = default;

  std::int64_t n_levels() const { return static_cast<std::int64_t>(levels.size()); }                // L
  const LevelSpec& level(std::int64_t l) const { return levels[static_cast<std::size_t>(l - 1)]; }  // l = 1…L
  bool is_vanilla() const { return trunk && trunk->span.kind == Span::Kind::global && trunk->memory.empty(); }
  std::int64_t chunk_tokens(std::int64_t l) const;  // C_≤l = C_1·…·C_l tokens in one unit of level l; 1 for l = 0
  std::int64_t group_tokens() const { return chunk_tokens(n_levels()); }  // C_≤L: a top-level group; 1 for L = 0
  std::int64_t width(std::int64_t l) const;          // D_l: width of a unit of level l; D_0 = d_embed
  std::int64_t cond_width(std::int64_t l) const;     // width of cond⁽ˡ⁾: D_L at the top, E_{l+1} below it
  std::int64_t content_width(std::int64_t l) const;  // of what Decoder_l reads: D_{l-1}, or E_1 with decoder_embedding
  std::int64_t head_width() const;                   // input of lm_head: E_1, or the trunk's d_model
  const StackSpec& token_stack() const;              // that predicts tokens: the level-1 decoder, or the trunk
  std::int64_t token_width() const;                  // of what this stack reads of a token
};

/// Parses a config.json text strictly: unknown keys, wrong types, duplicates and every inconsistency are problems.
/// @throws SpecError listing ALL problems, each with its place; `origin` names the file in the message.
Spec parse_spec(std::string_view json, const std::string& origin);
/// Reads a config.json, or the config.json of a model folder.
Spec load_spec(const std::filesystem::path& file_or_folder);
/// All problems of a spec built in code; empty if it is a model.
std::vector<std::string> problems(const Spec& spec);
/// The config.json text of a spec; parse_spec(to_json(s)) == s.
std::string to_json(const Spec& spec);

/// A weight tensor that the spec demands.
struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  bool operator==(const TensorSpec&) const = default;
};
/// Every tensor of the model, in forward order: the one list that loading, initialising, training and counting share.
std::vector<TensorSpec> tensors(const Spec& spec);

std::string to_string(const Span& span);            // "global", "window(16)", …
std::string_view to_string(MemorySpec::Kind kind);  // "text", "units"

}  // namespace photon
