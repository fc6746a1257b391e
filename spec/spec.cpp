#include "spec/spec.h"

#include <fmt/format.h>

#include <algorithm>

namespace photon {

bool MemorySpec::is_read_by(std::int64_t layer) const { return std::ranges::find(layers, layer) != layers.end(); }

const MemorySpec* StackSpec::memory_of(MemorySpec::Kind kind) const {
  const auto found = std::ranges::find(memory, kind, &MemorySpec::kind);
  return found == memory.end() ? nullptr : &*found;
}

std::int64_t Spec::chunk_tokens(std::int64_t l) const {
  std::int64_t tokens = 1;
  for (std::int64_t k = 1; k <= l; ++k) tokens *= level(k).chunk_size;
  return tokens;
}

std::int64_t Spec::width(std::int64_t l) const { return l == 0 ? d_embed : level(l).encoder.d_model; }

std::int64_t Spec::cond_width(std::int64_t l) const {
  return l == n_levels() ? width(l) : level(l + 1).decoder.d_model;
}

std::int64_t Spec::content_width(std::int64_t l) const {
  return l == 1 && decoder_embedding ? level(1).decoder.d_model : width(l - 1);
}

bool StackSpec::is_global(std::int64_t layer) const { return std::ranges::binary_search(global_layers, layer); }

std::int64_t StackSpec::n_global_before(std::int64_t layer) const {
  return std::ranges::lower_bound(global_layers, layer) - global_layers.begin();
}

Span StackSpec::span_of(std::int64_t layer) const { return is_global(layer) ? Span{} : span; }

std::vector<StackSpec> StackSpec::by_cache() const {
  StackSpec bounded = *this;
  bounded.global_layers.clear();
  if (global_layers.empty()) return {bounded};
  StackSpec unbounded = bounded;
  unbounded.n_layers = std::ssize(global_layers);
  unbounded.span = {};
  bounded.n_layers -= unbounded.n_layers;
  return {bounded, unbounded};
}

const StackSpec& Spec::token_stack() const { return trunk ? *trunk : level(1).decoder; }

std::int64_t Spec::token_width() const { return trunk ? d_embed : content_width(1); }

std::int64_t Spec::head_width() const { return token_stack().d_model; }

std::string_view to_string(MemorySpec::Kind kind) { return kind == MemorySpec::Kind::text ? "text" : "units"; }

std::string to_string(const Span& span) {
  using enum Span::Kind;
  const char* name = "global";
  switch (span.kind) {
    case global:
      break;
    case window:
      name = "window";
      break;
    case block:
      name = "block";
      break;
    case chunk:
      name = "chunk";
      break;
    case stream:
      name = "stream";
      break;
  }
  return span.size == 0 ? std::string(name) : fmt::format("{}({})", name, span.size);
}

}  // namespace photon
