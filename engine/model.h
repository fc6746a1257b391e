// A model's weights, structured as the equations of docs/architecture.md §2 and held in float32 or bfloat16.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/matrix.h"
#include "kernels/kernels.h"
#include "spec/spec.h"
#include "weights/model_folder.h"

namespace photon {

struct BlockWeights {
  std::vector<float> attn_norm, mlp_norm;  // [D]
  Weight q, k, v, o;                       // [H*h, D], [K*h, D], [K*h, D], [D, H*h]
  Weight gate, up, down;                   // [d_ff, D], [d_ff, D], [D, d_ff]
};

struct StackWeights {
  StackSpec spec;
  float norm_eps = 1e-5f;
  std::vector<BlockWeights> layers{};
  std::vector<float> norm{};  // [D]
  std::int64_t bytes = 0;     // of all its matrices: what one forward reads
};

struct LevelWeights {
  std::optional<Weight> chunker;  // [D_l, C_l·D_{l-1}]; none for concat
  StackWeights encoder;
  Weight converter;                    // [R_l·E_l, width of cond⁽ˡ⁾]
  std::optional<Weight> content_proj;  // P_l [E_l, D_{l-1}]; none where the widths are equal
  StackWeights decoder;
};

/// Immutable after loading: many sequences and threads may read it.  Matrices lie in the mapped file where its dtype is
/// the wanted one, otherwise they are converted while loading; norms and the start latent are float32.
struct Model {
  Spec spec;
  Weight::Type dtype = Weight::Type::f32;  // of matrices and of KV caches
  std::optional<std::filesystem::path> tokenizer;

  Weight embed;                       // [V, D_0]
  std::vector<LevelWeights> levels;   // levels[0] is level 1; empty for vanilla
  std::optional<StackWeights> trunk;  // vanilla only
  std::vector<float> start;           // [D_L]; empty for vanilla
  Weight lm_head;                     // [V, head_width]; the embedding where tied

  std::int64_t n_levels() const { return spec.n_levels(); }
  const LevelWeights& level(std::int64_t l) const { return levels[static_cast<std::size_t>(l - 1)]; }  // l = 1…L
  std::int64_t dtype_bytes() const { return dtype == Weight::Type::f32 ? 4 : 2; }

  std::shared_ptr<const ModelFolder> folder;  // keeps the mapping alive
  std::vector<Matrix<float>> converted_f32;   // owners of what the file holds in the other dtype
  std::vector<Matrix<bf16>> converted_bf16;
};

/// Loads a model folder.  Without `dtype`: bfloat16 if every matrix is stored so, else float32; nothing is rounded
/// unasked.
/// @throws SpecError, WeightsError or InputError naming file and field.
Model load_model(const std::filesystem::path& folder, std::optional<Weight::Type> dtype = std::nullopt);

/// Bytes of a matrix, and row r of it as float32.
std::int64_t bytes_of(const Weight& w);
void read_row(const Weight& w, std::int64_t r, std::span<float> out);  // out [cols]

}  // namespace photon
