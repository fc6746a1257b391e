// A model's weights, structured as the equations of docs/architecture.md §2 and packed for the kernels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/memory.h"
#include "kernels/weights.h"
#include "spec/spec.h"
#include "weights/model_folder.h"

namespace photon {

struct BlockWeights {
  std::vector<float> attn_norm, mlp_norm;  // [D]
  PackedWeight qkv;                        // [(H + 2K)·h, D]: q, k and v, which read the same input
  PackedWeight o;                          // [D, H·h]
  PackedWeight gate_up;                    // gated pair of [d_ff, D]
  PackedWeight down;                       // [D, d_ff]
};

/// What a stack's memory keeps of the past, docs/architecture.md §2.  Of text, tables that serve every token: keys and
/// values by id, made at load from embeddings and projections; float32 in a float32 model, else bfloat16.
struct MemoryWeights {
  MemorySpec spec;
  std::vector<float> offset, rates;        // [H]: added to scores; times ln(1 + distance) taken from them, or empty
  std::vector<PackedWeight> keys{};        // text: [context·K_m] of [V, h]: place o, kv head k at o·K_m + k
  DType value_type = DType::f32;           // text
  std::vector<const std::byte*> values{};  // text: [K_m] of [V][h]
  std::vector<float> norm{};               // units: [D_L]
  std::optional<PackedWeight> kv{};        // units: [2·K_m·h, D_L]
};

struct StackWeights {
  StackSpec spec;
  float norm_eps = 1e-5f;
  std::vector<BlockWeights> layers{};
  std::vector<float> norm{};  // [D]
  std::vector<MemoryWeights> memory{};
};

struct LevelWeights {
  std::vector<float> chunker_norm;      // [C_l·D_{l-1}]; empty where the spec has none, as the biases
  std::optional<PackedWeight> chunker;  // [D_l, C_l·D_{l-1}]; none for concat
  std::vector<float> chunker_bias;      // [D_l]
  StackWeights encoder;
  PackedWeight converter;                    // [R_l·E_l, width of cond⁽ˡ⁾]
  std::vector<float> converter_bias;         // [R_l·E_l]
  std::optional<PackedWeight> content_proj;  // P_l [E_l, D_{l-1}]; none where the widths are equal
  StackWeights decoder;
};

/// Immutable after loading: many sequences and threads may read it.  Matrices are copied out of the file into the
/// layout that the kernels read; norms, biases and the start latent are float32; embeddings are looked up where the
/// file holds them.
struct Model {
  Spec spec;
  DType dtype = DType::f32;  // of matrices
  DType kv = DType::f32;     // of KV caches
  std::optional<std::filesystem::path> tokenizer;

  MatrixView embed;                   // [V, D_0] as stored; see embedding()
  MatrixView decoder_embed;           // [V, E_1] as stored; no rows without decoder_embedding
  std::vector<LevelWeights> levels;   // levels[0] is level 1; empty for vanilla
  std::optional<StackWeights> trunk;  // vanilla only
  std::vector<float> start;           // [D_L], zeros where it is not learned; empty for vanilla
  PackedWeight lm_head;               // [V, head_width]; the embedding where tied

  std::int64_t n_levels() const { return spec.n_levels(); }
  const StackWeights& token_stack() const { return trunk ? *trunk : levels.front().decoder; }
  const LevelWeights& level(std::int64_t l) const { return levels[static_cast<std::size_t>(l - 1)]; }  // l = 1…L
  /// embed(token) as a matrix of `dtype` holds it, out [D_0].
  void embedding(std::int64_t token, std::span<float> out) const;
  /// The same of decoder_embed, which a model with decoder_embedding has, out [E_1].
  void decoder_embedding(std::int64_t token, std::span<float> out) const;

  std::shared_ptr<const ModelFolder> folder;  // keeps the mapping alive; none for random_model()
  Arena memory;                               // of the packed matrices
};

/// How a model is to be held.  Not said: weights as stored (float32 unless every matrix is bfloat16 or quantised), and
/// KV caches in float32 for float32 weights, else bfloat16.  Nothing is rounded unasked.
struct Precision {
  std::optional<DType> weights{};
  std::optional<DType> kv{};
};

/// Loads a model folder.
/// @throws SpecError, WeightsError or InputError naming file and field, also where the weights do not fit into memory
/// or a quantised file would have to be quantised again.
Model load_model(const std::filesystem::path& folder, const Precision& precision = {});

/// A model with the weights of UniformSource, for benchmarks: made in memory, in seconds.  @throws InputError likewise.
Model random_model(const Spec& spec, const Precision& precision, std::uint64_t seed);

/// Bytes that the packed matrices of a model take.
std::int64_t packed_bytes(const Spec& spec, DType type);

}  // namespace photon
