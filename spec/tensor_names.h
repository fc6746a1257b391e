// Names of a model's tensors, shaped like the model: spelled here, in docs/model-format.md, and nowhere else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "spec/spec.h"

namespace photon::names {

inline constexpr const char *embed = "embed.weight", *decoder_embed = "decoder_embed.weight", *start = "start.weight",
                            *lm_head = "lm_head.weight";

struct Block {
  std::string attn_norm, q, k, v, o, mlp_norm, gate, up, down;
};

struct Stack {
  explicit Stack(std::string stack_place);
  Block layer(std::int64_t i) const;  // from 0

  std::string place;  // "levels.1.encoder"
  std::string norm;
};
Stack trunk();

/// Of a stack's memory, which lies beside the stack: "levels.1.memory.k.weight", or, where there are both kinds,
/// "levels.1.memory.text.k.weight".
struct Memory {
  Memory(const Spec& spec, MemorySpec::Kind kind);

  std::string norm, k, v, offset, recency;
};

struct Level {
  explicit Level(std::int64_t l);  // 1…L

  std::string chunker_norm, chunker, chunker_bias, converter, converter_bias, content_proj;
  Stack encoder, decoder;
};

/// What a name says: "levels.2.decoder.layers.0.attn.o.weight" is "attn.o" of the decoder of level 2.
struct Place {
  std::int64_t level = 0;  // 1…L; 0: outside the levels
  std::string_view stack;  // "encoder", "decoder" or "trunk"; empty: outside the stacks
  std::string_view kind;   // what is alike in all places: "attn.q", "attn_norm", "norm", "chunker", "embed"; of a
                           // bias that of its matrix
};
Place place_of(std::string_view name);       // borrows the name
std::string part_of(std::string_view name);  // "level 2 decoder", "level 1 chunker", "trunk", "embed"
bool is_norm(std::string_view name);         // gains of an RMSNorm
bool is_bias(std::string_view name);
bool is_memory_scalar(std::string_view name);  // offset or recency of a memory: a number a head
bool is_residual_output(const Place& place);   // attn.o, mlp.down: what a block adds to the residual stream
const StackSpec* stack_of(const Place& place, const Spec& s);  // null outside the stacks

}  // namespace photon::names
