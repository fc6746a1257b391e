// The formulas of docs/architecture.md §4: parameters from the tensor list, work and traffic from rows and spans.
#include "spec/accounting.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "spec/tensor_names.h"

namespace photon {
namespace {

double real(std::int64_t n) { return static_cast<double>(n); }

// Tokens in one unit of level l.
double unit_tokens(const Spec& spec, std::int64_t l) { return real(spec.chunk_tokens(l)); }

// hiergen keeps every encoder up to date, recgen the top one only.
bool runs_encoder(const Spec& spec, Protocol protocol, std::int64_t l) {
  return protocol == Protocol::hiergen || l == spec.n_levels();
}

// Matrix elements of a stack: what a row is multiplied with.
double matrix_elements(const StackSpec& s) {
  return real(s.n_layers) * real(s.d_model) * (2 * real(s.q_width()) + 2 * real(s.kv_width()) + 3 * real(s.d_ff));
}
double stack_elements(const StackSpec& s) { return matrix_elements(s) + real((2 * s.n_layers + 1) * s.d_model); }
double chunker_matrix(const Spec& spec, std::int64_t l) {
  const LevelSpec& level = spec.level(l);
  return level.chunker == Chunker::concat ? 0.0 : real(level.chunk_size * spec.width(l - 1)) * real(spec.width(l));
}
double chunker_elements(const Spec& spec, std::int64_t l) {
  const LevelSpec& level = spec.level(l);
  return chunker_matrix(spec, l) + (level.chunker_bias ? real(spec.width(l)) : 0.0) +
         (level.chunker_norm ? real(level.chunk_size * spec.width(l - 1)) : 0.0);
}
double converter_matrix(const Spec& spec, std::int64_t l) {
  const LevelSpec& level = spec.level(l);
  return real(level.converter_len * level.decoder.d_model) * real(spec.cond_width(l));
}
double converter_elements(const Spec& spec, std::int64_t l) {
  const LevelSpec& level = spec.level(l);
  return converter_matrix(spec, l) + (level.converter_bias ? real(level.converter_len * level.decoder.d_model) : 0.0);
}
double content_proj_elements(const Spec& spec, std::int64_t l) {
  const std::int64_t D = spec.content_width(l), E = spec.level(l).decoder.d_model;
  return D == E ? 0.0 : real(D) * real(E);
}
double head_elements(const Spec& spec) { return real(spec.vocab_size) * real(spec.head_width()); }

// C - 1 content rows a group; `stream` lays out all C.
std::int64_t content_rows(const LevelSpec& level) {
  return level.decoder.span.kind == Span::Kind::stream ? level.chunk_size : level.chunk_size - 1;
}
std::int64_t decoder_rows(const LevelSpec& level) { return level.converter_len + content_rows(level); }

// Mean of min(size, i) over i = 1 … n.
double mean_of_last(double size, double n) {
  n = std::max(n, 1.0);
  if (n <= size) return (n + 1) / 2;
  return (size * (size + 1) / 2 + (n - size) * size) / n;
}

// Positions that an encoder or trunk row attends to in a stream of M units: at its end, or the mean over all of it.
enum class Where { end, mean };
double attended(const Span& span, double M, Where where) {
  const double size = real(span.size);
  switch (span.kind) {
    case Span::Kind::window:
      return where == Where::end ? std::min(size, M) : mean_of_last(size, M);
    case Span::Kind::block:
      return (std::min(size, std::max(M, 1.0)) + 1) / 2;
    default:
      return where == Where::end ? M : (M + 1) / 2;
  }
}

// Mean positions that a decoder row attends to after `groups` groups.
double attended(const LevelSpec& level, double groups, Where where) {
  const double n = real(decoder_rows(level));
  if (level.decoder.span.kind == Span::Kind::chunk) return (n + 1) / 2;
  const double size = real(level.decoder.span.size), laid_out = std::max(groups, 1.0) * n;
  return where == Where::end ? std::min(size, laid_out) : mean_of_last(size, laid_out);
}

// QKᵀ and AV of one row through all layers.
double attention_flops(const StackSpec& s, double positions) {
  return 4 * real(s.n_layers) * real(s.q_width()) * positions;
}

Flops encoder_flops(const Spec& spec, std::int64_t l, std::int64_t T, Where where) {
  const StackSpec& s = spec.level(l).encoder;
  const double rows = 1 / unit_tokens(spec, l);  // per token
  return {2 * rows * (matrix_elements(s) + chunker_matrix(spec, l)),
          rows * attention_flops(s, attended(s.span, real(T) * rows, where))};
}

Flops decoder_flops(const Spec& spec, std::int64_t l, std::int64_t T, Where where) {
  const LevelSpec& level = spec.level(l);
  const double groups = 1 / unit_tokens(spec, l);  // per token
  const double rows = groups * real(decoder_rows(level));
  return {2 * (rows * matrix_elements(level.decoder) + groups * converter_matrix(spec, l) +
               groups * real(content_rows(level)) * content_proj_elements(spec, l)),
          rows * attention_flops(level.decoder, attended(level, real(T) * groups, where))};
}

Flops trunk_flops(const Spec& spec, std::int64_t T, Where where) {
  const StackSpec& s = *spec.trunk;
  double attention = 0;
  for (std::int64_t layer = 0; layer < s.n_layers; ++layer)
    attention += attention_flops(s, attended(s.span_of(layer), real(T), where)) / real(s.n_layers);
  return {2 * matrix_elements(s), attention};
}

Flops operator+(Flops a, Flops b) { return {a.matmul + b.matmul, a.attention + b.attention}; }

Flops generation_flops(const Spec& spec, Protocol protocol, std::int64_t T, Where where) {
  Flops flops{2 * head_elements(spec), 0};
  if (spec.trunk) return flops + trunk_flops(spec, T, where);
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    if (runs_encoder(spec, protocol, l)) flops = flops + encoder_flops(spec, l, T, where);
    flops = flops + decoder_flops(spec, l, T, where);
  }
  return flops;
}

// ---- memory ----

std::int64_t memory_width(const Spec& spec, const MemorySpec& memory) {  // K_m·h
  return memory.n_kv_heads * spec.token_stack().head_dim;
}

// Rows of the stack that reads it, per token.
double reading_rows(const Spec& spec) {
  return spec.trunk ? 1.0 : real(decoder_rows(spec.level(1))) / real(spec.level(1).chunk_size);
}

// Matrix elements that make a unit's key and value.
double unit_projections(const Spec& spec, const MemorySpec& memory) {
  return 2 * real(memory_width(spec, memory)) * real(spec.width(spec.n_levels()));
}

// Of generating a token that sees so many before it: a row's scores with every id of the vocabulary, then a look-up for
// each token of the text; what units become when they are complete, then attention.
Flops memory_flops(const Spec& spec, double visible) {
  Flops flops;
  const StackSpec& s = spec.token_stack();
  for (const MemorySpec& memory : s.memory) {
    const double reads = reading_rows(spec) * real(std::ssize(memory.layers));
    if (memory.kind == MemorySpec::Kind::text) {
      flops.matmul += reads * 2 * real(memory.context + 1) * real(spec.vocab_size) * real(s.q_width());
      flops.attention += reads * visible * real(s.n_heads) * real(memory.context + 1);
    } else {
      flops.matmul += 2 * unit_projections(spec, memory) / real(spec.group_tokens());
      flops.attention += reads * 4 * real(s.q_width()) * visible / real(spec.group_tokens());
    }
  }
  return flops;
}

// Of training, where text is attended to like any keys and values.
Flops memory_training_flops(const Spec& spec, std::int64_t T) {
  Flops flops;
  const StackSpec& s = spec.token_stack();
  for (const MemorySpec& memory : s.memory) {
    const bool is_text = memory.kind == MemorySpec::Kind::text;
    const double entries = is_text ? 1.0 : 1 / real(spec.group_tokens());  // per token
    flops.matmul += 2 * entries *
                    (is_text ? real((memory.context + 1) * memory_width(spec, memory)) * real(spec.token_width())
                             : unit_projections(spec, memory));
    flops.attention +=
        reading_rows(spec) * real(std::ssize(memory.layers)) * 4 * real(s.q_width()) * entries * real(T) / 2;
  }
  return flops;
}

bool grows(const StackSpec& s) { return s.span.kind == Span::Kind::global; }  // its cache

// visit(stack, level) for what has a cache of its own among the encoders that the protocol keeps; the trunk stands at
// level 0, and its blocks with a window apart from those without.
template <class Visit>
void for_each_encoder(const Spec& spec, Protocol protocol, const Visit& visit) {
  if (spec.trunk)
    for (const StackSpec& s : spec.trunk->by_cache()) visit(s, 0);
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l)
    if (runs_encoder(spec, protocol, l)) visit(spec.level(l).encoder, l);
}

// Caches of a decoder that exist at once: recgen decodes all the groups of a `chunk` decoder in parallel.
std::int64_t decoder_caches(const Spec& spec, Protocol protocol, std::int64_t l) {
  const bool parallel = protocol == Protocol::recgen && spec.level(l).decoder.span.kind == Span::Kind::chunk;
  return parallel ? spec.group_tokens() / spec.chunk_tokens(l) : 1;
}

// Whole pages of the growing caches after T tokens, or only those that are full.
enum class Pages { begun, full };
std::int64_t paged_bytes(const Spec& spec, Protocol protocol, std::int64_t T, DType kv, Pages counted) {
  const auto rounded = [counted](std::int64_t n, std::int64_t page) {
    return (counted == Pages::begun ? n + page - 1 : n) / page * page;
  };
  std::int64_t bytes = 0;
  for_each_encoder(spec, protocol, [&](const StackSpec& s, std::int64_t l) {
    if (grows(s)) bytes += rounded(units_held(spec, l, T), kv_page_units) * kv_bytes_per_position(s, kv);
  });
  return bytes + rounded(T / spec.group_tokens(), kv_page_units) * memory_bytes_per_unit(spec, kv) +
         rounded(T, text_page_tokens) * text_bytes_per_token(spec);
}

}  // namespace

std::string_view to_string(Protocol protocol) { return protocol == Protocol::hiergen ? "hiergen" : "recgen"; }

Protocol parse_protocol(std::string_view text) {
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen})
    if (text == to_string(protocol)) return protocol;
  throw InputError(fmt::format("protocol '{}' is unknown, use hiergen or recgen", text));
}

Parameters count_parameters(const Spec& spec) {
  Parameters count;
  for (const TensorSpec& tensor : tensors(spec)) {
    std::int64_t elements = 1;
    for (const std::int64_t n : tensor.shape) elements *= n;
    count.total += elements;
    const std::string part = names::part_of(tensor.name);
    if (tensor.name == names::embed) {
      count.embedding = elements;
    } else if (tensor.name == names::lm_head) {
      count.head = elements;
    } else if (!count.parts.empty() && count.parts.back().first == part) {
      count.parts.back().second += elements;
    } else {
      count.parts.emplace_back(part, elements);
    }
  }
  return count;
}

std::int64_t kv_bytes_per_position(const StackSpec& stack, DType kv) {
  return stack.n_layers * stack.n_kv_heads * kv_position_bytes(kv, stack.head_dim);
}

std::int64_t units_held(const Spec& spec, std::int64_t l, std::int64_t T) {
  return l == 0 ? T + 1 : T / spec.chunk_tokens(l);
}

std::int64_t trunk_reach(const Spec& spec) {
  const StackSpec& s = *spec.trunk;
  if (s.span.kind != Span::Kind::window || !s.global_layers.empty())
    return std::numeric_limits<std::int64_t>::max() / 2;
  return s.n_layers * (s.span.size - 1);
}

std::int64_t text_bytes_per_token(const Spec& spec) {
  if (spec.token_stack().memory_of(MemorySpec::Kind::text) == nullptr) return 0;
  return spec.vocab_size <= (1 << 16) ? 2 : 4;
}

std::int64_t memory_bytes_per_unit(const Spec& spec, DType kv) {
  const MemorySpec* units = spec.token_stack().memory_of(MemorySpec::Kind::units);
  return units == nullptr ? 0 : units->n_kv_heads * kv_position_bytes(kv, spec.token_stack().head_dim);
}

double kv_bytes_per_token(const Spec& spec, Protocol protocol, DType kv) {
  double bytes = real(text_bytes_per_token(spec)) + real(memory_bytes_per_unit(spec, kv)) / real(spec.group_tokens());
  for_each_encoder(spec, protocol, [&](const StackSpec& s, std::int64_t l) {
    if (grows(s)) bytes += real(kv_bytes_per_position(s, kv)) / unit_tokens(spec, l);
  });
  return bytes;
}

std::int64_t spare_encoder_positions(const Spec& spec, std::int64_t l, std::int64_t n) {
  const std::int64_t unit = spec.chunk_tokens(l);
  return (n + unit - 1) / unit;
}

std::int64_t spare_decoder_positions(const Spec& spec, std::int64_t l, std::int64_t n) {
  const LevelSpec& level = spec.level(l);
  const std::int64_t R = level.converter_len, C = level.chunk_size;
  if (n == 0 || level.decoder.span.kind != Span::Kind::stream) return 0;  // `chunk` begins its group anew
  const std::int64_t units = spare_encoder_positions(spec, l - 1, n);
  return units + R * ((units + C - 1) / C) + R - 1;  // the prefixes between them, and that of the group to begin anew
}

std::int64_t kv_bytes_constant(const Spec& spec, Protocol protocol, DType kv, std::int64_t take_back) {
  std::int64_t bytes = 0;
  for_each_encoder(spec, protocol, [&](const StackSpec& s, std::int64_t l) {
    if (grows(s)) return;
    bytes += (s.span.size + spare_encoder_positions(spec, l, take_back)) * kv_bytes_per_position(s, kv);
  });
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const LevelSpec& level = spec.level(l);
    const bool is_chunk = level.decoder.span.kind == Span::Kind::chunk;
    const std::int64_t positions =
        is_chunk ? decoder_rows(level) : level.decoder.span.size + spare_decoder_positions(spec, l, take_back);
    bytes += decoder_caches(spec, protocol, l) * positions * kv_bytes_per_position(level.decoder, kv);
  }
  return bytes;
}

std::int64_t kv_bytes_allocated(const Spec& spec, Protocol protocol, std::int64_t T, DType kv, std::int64_t take_back) {
  return kv_bytes_constant(spec, protocol, kv, take_back) + paged_bytes(spec, protocol, T, kv, Pages::begun);
}

std::int64_t kv_bytes_filled(const Spec& spec, Protocol protocol, std::int64_t T, DType kv) {
  return paged_bytes(spec, protocol, T, kv, Pages::full);
}

std::int64_t kv_bytes_at_most(const Spec& spec, Protocol protocol, std::int64_t n_prompt, std::int64_t n_tokens,
                              std::int64_t n_continuations, DType kv) {
  using enum Protocol;
  const std::int64_t shared = kv_bytes_filled(spec, hiergen, n_prompt, kv);
  std::int64_t each = kv_bytes_allocated(spec, hiergen, n_prompt + n_tokens, kv);
  if (protocol == recgen) {
    const std::int64_t group = spec.group_tokens();
    const auto whole_groups = [group](std::int64_t T) { return (T + group - 1) / group * group; };
    const auto growing = [&](Protocol kept, std::int64_t T) {
      return kv_bytes_allocated(spec, kept, T, kv) - kv_bytes_constant(spec, kept, kv);
    };
    const std::int64_t begin = whole_groups(n_prompt);
    each = std::max(kv_bytes_constant(spec, hiergen, kv), kv_bytes_constant(spec, recgen, kv)) +
           growing(hiergen, begin) - growing(recgen, begin) + growing(recgen, whole_groups(n_prompt + n_tokens));
  }
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const std::int64_t own = each - shared;
  return own > (most - shared) / n_continuations ? most : shared + own * n_continuations;
}

KvRead kv_bytes_read(const Spec& spec, Protocol protocol, std::int64_t T, DType kv) {
  KvRead read;
  for_each_encoder(spec, protocol, [&](const StackSpec& s, std::int64_t l) {
    const double rows = 1 / unit_tokens(spec, l);  // per token
    (grows(s) ? read.growing : read.bounded) +=
        rows * real(kv_bytes_per_position(s, kv)) * attended(s.span, real(T) * rows, Where::end);
  });
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const LevelSpec& level = spec.level(l);
    const double groups = 1 / unit_tokens(spec, l);  // per token
    read.bounded += groups * real(decoder_rows(level)) * real(kv_bytes_per_position(level.decoder, kv)) *
                    attended(level, real(T) * groups, Where::end);
  }
  for (const MemorySpec& memory : spec.token_stack().memory) {
    const double bytes_per_token = memory.kind == MemorySpec::Kind::text
                                       ? real(text_bytes_per_token(spec))
                                       : real(memory_bytes_per_unit(spec, kv)) / real(spec.group_tokens());
    read.growing += reading_rows(spec) * real(std::ssize(memory.layers)) * bytes_per_token * real(T);
  }
  return read;
}

double weights_read_per_token(const Spec& spec, Protocol protocol) {
  double elements = 0;
  for (const MemorySpec& memory : spec.token_stack().memory) {
    if (memory.kind == MemorySpec::Kind::units)
      elements += unit_projections(spec, memory) / real(spec.group_tokens());
    else  // C steps a group of tokens, as many groups at once as the decoder runs
      elements += real(std::ssize(memory.layers)) * real(memory.context + 1) * real(memory_width(spec, memory)) *
                  real(spec.vocab_size) / (spec.trunk ? 1.0 : real(decoder_caches(spec, protocol, 1)));
  }
  if (spec.trunk) return elements + stack_elements(*spec.trunk) + head_elements(spec);
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const LevelSpec& level = spec.level(l);
    const double groups = 1 / unit_tokens(spec, l);  // per token
    if (runs_encoder(spec, protocol, l))
      elements += groups * (stack_elements(level.encoder) + chunker_elements(spec, l));
    const double passes = groups / real(decoder_caches(spec, protocol, l));  // of C steps each, per token
    elements += passes * (real(level.chunk_size) * stack_elements(level.decoder) + converter_elements(spec, l));
    if (l == 1)
      elements += passes * real(level.chunk_size) * head_elements(spec);
    else
      elements += passes * real(content_rows(level)) * content_proj_elements(spec, l);
  }
  return elements;
}

Flops prefill_flops(const Spec& spec, std::int64_t T) {
  if (spec.trunk) {
    const double reach = real(trunk_reach(spec)),
                 share = std::min(1.0, (reach + 1) / real(std::max<std::int64_t>(1, T)));
    const Flops all = trunk_flops(spec, T, Where::mean) + memory_flops(spec, real(T) * (1 - share / 2));
    return {all.matmul * share, all.attention * share};
  }
  Flops flops;
  for (const MemorySpec& memory : spec.token_stack().memory)
    if (memory.kind == MemorySpec::Kind::units)
      flops.matmul += 2 * unit_projections(spec, memory) / real(spec.group_tokens());
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) flops = flops + encoder_flops(spec, l, T, Where::mean);
  return flops;
}

Flops decode_flops(const Spec& spec, Protocol protocol, std::int64_t T) {
  return generation_flops(spec, protocol, T, Where::end) + memory_flops(spec, real(T));
}

Flops training_flops(const Spec& spec, std::int64_t T) {
  return generation_flops(spec, Protocol::hiergen, T, Where::mean) + memory_training_flops(spec, T);
}

Spec matching_vanilla(const Spec& spec) {
  Spec vanilla = spec;
  if (spec.trunk) {
    vanilla.trunk->span = {}, vanilla.trunk->memory.clear(), vanilla.trunk->global_layers.clear();
    return vanilla;
  }
  vanilla.levels.clear();
  vanilla.decoder_embedding = false, vanilla.learned_start = true;
  StackSpec& trunk = vanilla.trunk.emplace(spec.level(1).decoder);
  trunk.span = {}, trunk.memory.clear();
  vanilla.d_embed = trunk.d_model;
  trunk.n_layers = 1;
  const std::int64_t one = count_parameters(vanilla).total;
  trunk.n_layers = 2;
  const std::int64_t block = count_parameters(vanilla).total - one;
  const double layers = 1 + std::round(real(count_parameters(spec).total - one) / real(block));
  trunk.n_layers = static_cast<std::int64_t>(std::clamp(layers, 1.0, real(max_layers)));
  return vanilla;
}

}  // namespace photon
