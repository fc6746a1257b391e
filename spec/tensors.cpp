// The tensors of a model, with their shapes.
#include "spec/spec.h"
#include "spec/tensor_names.h"

namespace photon {
namespace {

void add_stack(const StackSpec& s, const names::Stack& name, std::vector<TensorSpec>& list) {
  for (std::int64_t i = 0; i < s.n_layers; ++i) {
    const names::Block layer = name.layer(i);
    list.push_back({layer.attn_norm, {s.d_model}});
    list.push_back({layer.q, {s.q_width(), s.d_model}});
    list.push_back({layer.k, {s.kv_width(), s.d_model}});
    list.push_back({layer.v, {s.kv_width(), s.d_model}});
    list.push_back({layer.o, {s.d_model, s.q_width()}});
    list.push_back({layer.mlp_norm, {s.d_model}});
    list.push_back({layer.gate, {s.d_ff, s.d_model}});
    list.push_back({layer.up, {s.d_ff, s.d_model}});
    list.push_back({layer.down, {s.d_model, s.d_ff}});
  }
  list.push_back({name.norm, {s.d_model}});
}

// What the stack that predicts tokens reads of the past.  Text: keys and values of the content of tokens.
void add_memory(const Spec& spec, std::vector<TensorSpec>& list) {
  const StackSpec& s = spec.token_stack();
  for (const MemorySpec& memory : s.memory) {
    const bool is_text = memory.kind == MemorySpec::Kind::text;
    const names::Memory name(spec, memory.kind);
    const std::int64_t source = is_text ? spec.token_width() : spec.width(spec.n_levels());
    const std::int64_t width = memory.n_kv_heads * s.head_dim;
    list.push_back({name.norm, {source}});
    list.push_back({name.k, {(is_text ? memory.context : 1) * width, source}});
    list.push_back({name.v, {width, source}});
    list.push_back({name.offset, {s.n_heads}});
    if (memory.recency) list.push_back({name.recency, {s.n_heads}});
  }
}

}  // namespace

std::vector<TensorSpec> tensors(const Spec& spec) {
  const std::int64_t L = spec.n_levels();
  std::vector<TensorSpec> list{{names::embed, {spec.vocab_size, spec.d_embed}}};
  for (std::int64_t l = 1; l <= L; ++l) {
    const LevelSpec& level = spec.level(l);
    const names::Level name(l);
    const std::int64_t chunk_width = level.chunk_size * spec.width(l - 1);
    if (level.chunker_norm) list.push_back({name.chunker_norm, {chunk_width}});
    if (level.chunker == Chunker::linear) list.push_back({name.chunker, {spec.width(l), chunk_width}});
    if (level.chunker_bias) list.push_back({name.chunker_bias, {spec.width(l)}});
    add_stack(level.encoder, name.encoder, list);
  }
  if (L > 0 && spec.learned_start) list.push_back({names::start, {spec.width(L)}});
  for (std::int64_t l = L; l >= 1; --l) {
    const LevelSpec& level = spec.level(l);
    const names::Level name(l);
    const std::int64_t E = level.decoder.d_model;
    list.push_back({name.converter, {level.converter_len * E, spec.cond_width(l)}});
    if (level.converter_bias) list.push_back({name.converter_bias, {level.converter_len * E}});
    if (l == 1 && spec.decoder_embedding) list.push_back({names::decoder_embed, {spec.vocab_size, E}});
    if (const std::int64_t D = spec.content_width(l); D != E) list.push_back({name.content_proj, {E, D}});
    if (l == 1) add_memory(spec, list);
    add_stack(level.decoder, name.decoder, list);
  }
  if (spec.trunk) add_memory(spec, list), add_stack(*spec.trunk, names::trunk(), list);
  if (!spec.tie_embeddings) list.push_back({names::lm_head, {spec.vocab_size, spec.head_width()}});
  return list;
}

}  // namespace photon
