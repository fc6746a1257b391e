#include "weights/llama_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "spec/tensor_names.h"

namespace photon {
namespace {

enum FileType : std::uint32_t { all_f32 = 0, mostly_bf16 = 32 };  // general.file_type

std::uint32_t size(std::int64_t value) { return static_cast<std::uint32_t>(value); }  // specs are far below 2^32

// What a model with levels has beside its stacks, by the keys that ask for it: " (decoder_embedding, …)".
std::string own_parts(const Spec& spec) {
  std::string list;
  const auto add = [&](bool has, const std::string& key) {
    if (has) list += (list.empty() ? " (" : ", ") + key;
  };
  add(spec.decoder_embedding, "decoder_embedding");
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const LevelSpec& level = spec.level(l);
    add(level.converter_bias, fmt::format("level {} converter_bias", l));
    add(level.chunker_bias, fmt::format("level {} chunker_bias", l));
    add(level.chunker_norm, fmt::format("level {} chunker_norm", l));
  }
  return list.empty() ? list : list + ")";
}

}  // namespace

std::vector<std::int64_t> interleaved_rows(std::int64_t n_heads, std::int64_t head_dim) {
  std::vector<std::int64_t> order;
  for (std::int64_t head = 0; head < n_heads; ++head)
    for (std::int64_t i = 0; i < head_dim / 2; ++i)
      for (std::int64_t j = 0; j < 2; ++j) order.push_back(head * head_dim + i + j * head_dim / 2);
  return order;
}

LlamaGguf llama_gguf(const Spec& spec, const TensorSource& source, const std::string& name, std::optional<DType> dtype,
                     std::int64_t context_length) {
  const auto refuse = [&](const std::string& why) { throw InputError(fmt::format("{}: {}", source.name(), why)); };
  if (!spec.trunk)
    refuse(fmt::format("a model with {} level{}{} has no GGUF form; only vanilla models (no levels) can be exported",
                       spec.n_levels(), spec.n_levels() == 1 ? "" : "s", own_parts(spec)));
  const StackSpec& trunk = *spec.trunk;
  if (trunk.span.kind != Span::Kind::global)
    refuse(fmt::format("span {} has no place in GGUF's llama architecture; only a global trunk can be exported",
                       to_string(trunk.span)));
  if (!trunk.memory.empty())
    refuse("memory has no place in GGUF's llama architecture; only a trunk without it can be exported");
  if (trunk.head_dim % 2 != 0)
    refuse(fmt::format("head_dim {} is odd, and GGUF's llama architecture rotates pairs; it must be even",
                       trunk.head_dim));

  LlamaGguf gguf;
  std::map<std::string, TensorSpec> by_name;
  for (TensorSpec& tensor : tensors(spec)) by_name[tensor.name] = tensor;
  const auto add = [&](const std::string& ours, const std::string& theirs, std::vector<std::int64_t> row_order = {}) {
    const TensorSpec& tensor = by_name.at(ours);
    const auto stored = source.stored(tensor);
    if (stored && stored->is_quantized())
      refuse(fmt::format("'{}' is {}; export the model before it is quantised", ours, to_string(stored->dtype)));
    const DType held = stored ? stored->dtype : DType::f32;
    const MappedSource renamed(source, [&](const TensorSpec&) { return MappedSource::Origin{tensor, row_order}; });
    gguf.tensors.push_back({theirs, tensor.shape.size() == 1 ? DType::f32 : dtype.value_or(held), tensor.shape,
                            renamed.rows({theirs, tensor.shape})});
  };
  add(names::embed, "token_embd.weight");
  for (std::int64_t i = 0; i < trunk.n_layers; ++i) {
    const names::Block ours = names::trunk().layer(i);
    const auto theirs = [i](const char* kind) { return fmt::format("blk.{}.{}.weight", i, kind); };
    add(ours.attn_norm, theirs("attn_norm"));
    add(ours.q, theirs("attn_q"), interleaved_rows(trunk.n_heads, trunk.head_dim));
    add(ours.k, theirs("attn_k"), interleaved_rows(trunk.n_kv_heads, trunk.head_dim));
    add(ours.v, theirs("attn_v"));
    add(ours.o, theirs("attn_output"));
    add(ours.mlp_norm, theirs("ffn_norm"));
    add(ours.gate, theirs("ffn_gate"));
    add(ours.up, theirs("ffn_up"));
    add(ours.down, theirs("ffn_down"));
  }
  add(names::trunk().norm, "output_norm.weight");
  if (!spec.tie_embeddings) add(names::lm_head, "output.weight");

  const bool has_bf16 = std::any_of(gguf.tensors.begin(), gguf.tensors.end(),
                                    [](const GgufTensor& tensor) { return tensor.dtype == DType::bf16; });
  gguf.metadata = {
      {"general.architecture", "llama"},
      {"general.name", name},
      {"general.file_type", std::uint32_t{has_bf16 ? mostly_bf16 : all_f32}},
      {"llama.vocab_size", size(spec.vocab_size)},
      {"llama.context_length", size(context_length)},
      {"llama.embedding_length", size(trunk.d_model)},
      {"llama.block_count", size(trunk.n_layers)},
      {"llama.feed_forward_length", size(trunk.d_ff)},
      {"llama.attention.head_count", size(trunk.n_heads)},
      {"llama.attention.head_count_kv", size(trunk.n_kv_heads)},
      {"llama.attention.key_length", size(trunk.head_dim)},
      {"llama.attention.value_length", size(trunk.head_dim)},
      {"llama.attention.layer_norm_rms_epsilon", static_cast<float>(spec.norm_eps)},
      {"llama.rope.dimension_count", size(trunk.head_dim)},
      {"llama.rope.freq_base", static_cast<float>(trunk.rope_theta)},
  };
  return gguf;
}

}  // namespace photon
