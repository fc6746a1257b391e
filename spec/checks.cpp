// What a model demands of its spec.
#include "spec/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace photon {
namespace {

// Limits far above any use, so that sizes, products and cache bytes stay within int64_t.
constexpr std::int64_t max_dimension = std::int64_t{1} << 24;
constexpr std::int64_t max_head_width = std::int64_t{1} << 20;    // n_heads·head_dim
constexpr std::int64_t max_chunk_tokens = std::int64_t{1} << 16;  // C_≤L
constexpr std::int64_t max_converter_len = std::int64_t{1} << 10;
constexpr std::int64_t max_memory_context = 64;
constexpr std::int64_t max_parameters = std::int64_t{1} << 40;

void check_range(const std::string& place, const char* field, std::int64_t value, std::int64_t low, std::int64_t high,
                 Problems& problems) {
  if (problems.good(place, {field}) && (value < low || value > high))
    problems.add_bad(place, field, fmt::format("{} is {}, must be {} to {}", field, value, low, high));
}

void check_positive(const std::string& place, const char* field, double value, Problems& problems) {
  if (problems.good(place, {field}) && !(value > 0 && std::isfinite(value)))
    problems.add_bad(place, field, fmt::format("{} is {}, must be a number above 0", field, value));
}

// Blocks of a stack of n, named by their numbers.
void check_layers(const std::string& place, const char* field, const std::vector<std::int64_t>& layers, std::int64_t n,
                  Problems& problems) {
  if (!problems.good(place, {field})) return;
  for (const std::int64_t layer : layers)
    if (layer < 0 || layer >= n)
      problems.add(place, fmt::format("{} names block {}, the stack has blocks 0 to {}", field, layer, n - 1));
  if (std::ranges::adjacent_find(layers, std::greater_equal<>()) != layers.end())
    problems.add(place, fmt::format("{} [{}] must ascend, each block once", field, fmt::join(layers, ", ")));
}

void check(const StackSpec& s, const std::string& place, std::initializer_list<Span::Kind> spans,
           const char* spans_text, Problems& problems) {
  check_range(place, "d_model", s.d_model, 1, max_dimension, problems);
  check_range(place, "n_layers", s.n_layers, 1, max_layers, problems);
  check_range(place, "n_heads", s.n_heads, 1, max_head_width, problems);
  check_range(place, "n_kv_heads", s.n_kv_heads, 1, max_head_width, problems);
  check_range(place, "head_dim", s.head_dim, 1, max_head_width, problems);
  check_range(place, "d_ff", s.d_ff, 1, max_dimension, problems);
  check_positive(place, "rope_theta", s.rope_theta, problems);
  if (problems.good(place, {"n_heads", "n_kv_heads"}) && s.n_heads % s.n_kv_heads != 0)
    problems.add(place, fmt::format("n_heads {} is not a multiple of n_kv_heads {}", s.n_heads, s.n_kv_heads));
  if (problems.good(place, {"n_heads", "head_dim"}) && s.q_width() > max_head_width)
    problems.add_bad(place, "head_dim",
                     fmt::format("n_heads {} x head_dim {} is above {}", s.n_heads, s.head_dim, max_head_width));
  if (!problems.good(place, {"span"})) return;
  if (std::find(spans.begin(), spans.end(), s.span.kind) == spans.end())
    problems.add(place, fmt::format("span {} does not fit here, use {}", to_string(s.span), spans_text));
  if (s.span.has_size())
    check_range(place + " span", "size", s.span.size, 1, max_dimension, problems);
  else if (s.span.size != 0)
    problems.add(place + " span", fmt::format("size is {}, but {} has none", s.span.size, to_string(s.span)));
}

// A trunk's: all others must have none.
void check_global_layers(const StackSpec& s, const std::string& place, Problems& problems) {
  if (s.global_layers.empty()) return;
  if (problems.good(place, {"span"}) && s.span.kind != Span::Kind::window)
    problems.add(place, fmt::format("global_layers needs span window, which it is an exception to: span is {}",
                                    to_string(s.span)));
  if (!problems.good(place, {"n_layers"})) return;
  check_layers(place, "global_layers", s.global_layers, s.n_layers, problems);
  if (std::ssize(s.global_layers) >= s.n_layers)
    problems.add(place, "global_layers names every block; use span global");
}

void refuse_global_layers(const StackSpec& s, const std::string& place, Problems& problems) {
  if (!s.global_layers.empty())
    problems.add(place, "global_layers does not fit here: a trunk with a window may have it");
}

// The level-1 decoder and the trunk: all others must have none.
void check_memory(const Spec& spec, const StackSpec& s, const std::string& stack_place, Problems& problems) {
  const std::string place = memory_place(stack_place);
  for (const MemorySpec& memory : s.memory) {
    const bool is_text = memory.kind == MemorySpec::Kind::text;
    check_range(place, "n_kv_heads", memory.n_kv_heads, 1, max_head_width, problems);
    if (problems.good(place, {"n_kv_heads"}) && problems.good(stack_place, {"n_heads"}) &&
        s.n_heads % memory.n_kv_heads != 0)
      problems.add(place,
                   fmt::format("n_kv_heads {} does not divide the stack's n_heads {}", memory.n_kv_heads, s.n_heads));
    if (problems.good(stack_place, {"n_layers"})) {
      if (memory.layers.empty() && problems.good(place, {"layers"}))
        problems.add(place, "layers names no block; leave the memory out if none reads it");
      check_layers(place, "layers", memory.layers, s.n_layers, problems);
    }
    if (is_text) check_range(place, "context", memory.context, 1, max_memory_context, problems);
    if (!is_text && memory.context != 0)
      problems.add(place, fmt::format("context is {}, but units have none", memory.context));
    if (is_text && memory.rope) problems.add(place, "rope needs kind \"units\": keys of text know no positions");
    if (!is_text && memory.recency) problems.add(place, "recency needs kind \"text\"");
    if (!is_text && spec.trunk) problems.add(place, "kind \"units\" needs a level: a trunk has no units");
    if (!is_text && memory.rope && problems.good(stack_place, {"span"}) && s.span.kind != Span::Kind::stream)
      problems.add(place,
                   fmt::format("rope needs a stream decoder, whose positions go on: span is {}", to_string(s.span)));
  }
  if (s.memory.size() > 2 || (s.memory.size() == 2 && s.memory[0].kind == s.memory[1].kind))
    problems.add(place, "may be given once of each kind, \"text\" and \"units\"");
}

void refuse_memory(const StackSpec& s, const std::string& place, Problems& problems) {
  if (!s.memory.empty()) problems.add(place, "memory does not fit here: the level-1 decoder or a trunk may read it");
}

void check_chunk_tokens(const Spec& spec, Problems& problems) {
  std::int64_t tokens = 1;
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    if (!problems.good(level_place(l), {"chunk_size"})) return;
    tokens *= spec.level(l).chunk_size;
    if (tokens > max_chunk_tokens) {
      problems.add_bad(level_place(l), "chunk_size",
                       fmt::format("one unit covers {} tokens, at most {} can be", tokens, max_chunk_tokens));
      return;
    }
  }
}

void check_level(const Spec& spec, std::int64_t l, Problems& problems) {
  const LevelSpec& level = spec.level(l);
  const std::string place = level_place(l), encoder = encoder_place(l), decoder = decoder_place(l);
  using enum Span::Kind;
  check_range(place, "chunk_size", level.chunk_size, 2, max_chunk_tokens, problems);
  check_range(place, "converter_len", level.converter_len, 1, max_converter_len, problems);
  if (l == spec.n_levels())
    check(level.encoder, encoder, {global}, "global (it is the top encoder)", problems);
  else
    check(level.encoder, encoder, {global, window, block}, "global, window or block", problems);
  check(level.decoder, decoder, {chunk, stream}, "chunk or stream", problems);
  refuse_memory(level.encoder, encoder, problems);
  refuse_global_layers(level.encoder, encoder, problems);
  refuse_global_layers(level.decoder, decoder, problems);
  l == 1 ? check_memory(spec, level.decoder, decoder, problems) : refuse_memory(level.decoder, decoder, problems);

  if (level.chunker == Chunker::concat && problems.good(place, {"chunker"}))
    for (const auto& [field, is_set] :
         {std::pair{"chunker_bias", level.chunker_bias}, {"chunker_norm", level.chunker_norm}})
      if (is_set && problems.good(place, {field}))
        problems.add(place,
                     fmt::format("{} needs chunker \"linear\": \"concat\" has no map that it could belong to", field));
  const std::string below = l == 1 ? std::string() : encoder_place(l - 1);
  const char* const below_field = l == 1 ? "d_embed" : "d_model";
  if (level.chunker == Chunker::concat && problems.good(place, {"chunk_size", "chunker"}) &&
      problems.good(encoder, {"d_model"}) && problems.good(below, {below_field}) &&
      level.chunk_size * spec.width(l - 1) != spec.width(l))
    problems.add(place,
                 fmt::format("chunker \"concat\" needs chunk_size x width below = encoder d_model, got {} x {} != {}; "
                             "use \"linear\" or change a width",
                             level.chunk_size, spec.width(l - 1), spec.width(l)));
  if (l >= 2 && problems.good(decoder, {"d_model"}) && problems.good(below, {"d_model"}) &&
      level.decoder.d_model != spec.width(l - 1))
    problems.add(
        decoder,
        fmt::format("d_model {} differs from the level {} encoder's {}: its outputs stand for that encoder's units",
                    level.decoder.d_model, l - 1, spec.width(l - 1)));
}

void check_token(const Spec& spec, const char* field, std::int64_t id, Problems& problems) {
  if (problems.good("", {"vocab_size", field})) check_range("", field, id, 0, spec.vocab_size - 1, problems);
}

// In floating point: the products may leave int64_t.
void check_parameters(const Spec& spec, Problems& problems) {
  double total = 0;
  for (const TensorSpec& tensor : tensors(spec)) {
    double elements = 1;
    for (const std::int64_t n : tensor.shape) elements *= static_cast<double>(n);
    total += elements;
  }
  if (total > static_cast<double>(max_parameters))
    problems.add("",
                 fmt::format("the model would have {:.3g} parameters, at most {} are possible", total, max_parameters));
}

}  // namespace

std::string level_place(std::int64_t l) { return fmt::format("level {}", l); }
std::string encoder_place(std::int64_t l) { return fmt::format("level {} encoder", l); }
std::string decoder_place(std::int64_t l) { return fmt::format("level {} decoder", l); }
std::string memory_place(const std::string& stack_place) { return stack_place + " memory"; }

void check(const Spec& spec, Problems& problems) {
  check_range("", "vocab_size", spec.vocab_size, 1, max_dimension, problems);
  check_range("", "d_embed", spec.d_embed, 1, max_dimension, problems);
  check_positive("", "norm_eps", spec.norm_eps, problems);
  check_token(spec, "bos_token_id", spec.bos_token_id, problems);
  check_token(spec, "eos_token_id", spec.eos_token_id, problems);

  if (problems.good("", {"levels", "trunk"}) && spec.levels.empty() != spec.trunk.has_value()) {
    problems.add_bad("", "levels",
                     spec.levels.empty() ? "neither levels nor a trunk: a model has one of the two"
                                         : "both levels and a trunk: a model has one of the two");
  }
  if (spec.n_levels() > max_levels) {
    problems.add_bad("", "levels", fmt::format("{} levels, at most {} are possible", spec.n_levels(), max_levels));
    return;
  }
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) check_level(spec, l, problems);
  check_chunk_tokens(spec, problems);
  if (spec.trunk) {
    check(*spec.trunk, "trunk", {Span::Kind::global, Span::Kind::window}, "global or window", problems);
    check_global_layers(*spec.trunk, "trunk", problems);
    check_memory(spec, *spec.trunk, "trunk", problems);
    if (problems.good("", {"d_embed"}) && problems.good("trunk", {"d_model"}) && spec.d_embed != spec.trunk->d_model)
      problems.add("trunk", fmt::format("d_model {} differs from d_embed {}", spec.trunk->d_model, spec.d_embed));
  }

  if (!problems.good("", {"levels", "trunk"})) return;
  const std::int64_t L = spec.n_levels();
  if (L == 0 && spec.decoder_embedding && problems.good("", {"decoder_embedding"}))
    problems.add("", "decoder_embedding needs a level: a trunk has no decoder");
  if (!spec.learned_start && problems.good("", {"learned_start"})) {
    if (L == 0)
      problems.add("", "learned_start false needs a level: a trunk starts with bos_token_id");
    else if (!spec.level(L).converter_bias && problems.good(level_place(L), {"converter_bias"}))
      problems.add(level_place(L),
                   "learned_start false needs converter_bias here: the converter would make zeros of the first group's "
                   "condition");
  }
  const std::string last = spec.trunk ? "trunk" : decoder_place(1);
  if (spec.tie_embeddings && problems.good("", {"d_embed", "tie_embeddings"}) && problems.good(last, {"d_model"}) &&
      spec.d_embed != spec.head_width())
    problems.add(
        "", fmt::format(
                "tie_embeddings needs d_embed {} to equal the {}'s d_model {}{}", spec.d_embed, last, spec.head_width(),
                spec.decoder_embedding ? "; the head is tied to embed.weight, also beside a decoder_embedding" : ""));
  if (problems.all_good()) check_parameters(spec, problems);
}

std::vector<std::string> problems(const Spec& spec) {
  Problems found;
  check(spec, found);
  return found.take();
}

}  // namespace photon
