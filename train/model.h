// The one model class for every L: vanilla Transformer, Block Transformer and PHOTON.  docs/architecture.md §2.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spec/spec.h"
#include "spec/tensor_names.h"
#include "train/memory.h"
#include "train/ops.h"
#include "train/recipe.h"
#include "train/torch.h"
#include "weights/tensor_source.h"

namespace photon {
/// Parts of the model: each registers its parameters in the model, under the names of their tensors.
namespace modules {

/// Some positions of a stream that repeats with a period: those s with first <= s mod period < first + count.
struct Slots {
  int64_t period = 1, first = 0, count = 1;
};

/// The residual stream as x + y: the last addition is left to the norm that reads it.
struct Residual {
  torch::Tensor x, y;  // [B, S, D]; y may be undefined: zero
};

/// What a memory keeps of the past: keys and values of tokens or of top-level units.
struct Memory {
  Memory(torch::nn::Module& model, const Spec& spec, const MemorySpec& memory);
  /// text: content [B, T, E] of the tokens; units: X⁽ᴸ⁾ [B, M, D_L].
  Remembered remember(const torch::Tensor& past, torch::ScalarType dtype) const;

  MemorySpec spec;
  StackSpec stack;  // that reads it
  RowLayout layout;
  double norm_eps;
  torch::Tensor norm, k, v, offset, recency;  // recency undefined where the spec has none
};

/// What a stack may ask: the memories of each of its blocks, for rows of B sequences.
struct Past {
  int64_t n_sequences = 0;
  RowLayout layout;
  std::vector<std::vector<Remembered>> of_layer;  // [n_layers]
};

/// One pre-norm block: attention and SwiGLU, each added to the residual stream.
struct Block {
  Block(torch::nn::Module& model, const names::Block& name, const StackSpec& stack, double norm_eps);
  /// stream [B, S, D]; returns the updated stream at `wanted` positions only, [B, S/period·count, D].
  /// memories, of `past`: what it reads beside its span; none: nothing.
  Residual forward(const Residual& stream, const ops::RopeTable& rope, const Slots& wanted, torch::ScalarType dtype,
                   const Past& past, const std::vector<Remembered>& memories);

  StackSpec stack;
  double norm_eps;
  torch::Tensor attn_norm, q, k, v, o, mlp_norm, gate, up, down;
};

/// A causal Transformer stack with its final norm.
struct Stack {
  Stack(torch::nn::Module& model, const names::Stack& name, const StackSpec& spec, double norm_eps);
  /// x [B, S, D] -> [B, S/period·count, D] in `dtype`, at `wanted` positions only (S a multiple of the period).
  /// With a past, the rows of a sequence may be folded into the batch.
  torch::Tensor forward(const torch::Tensor& x, torch::ScalarType dtype, const Slots& wanted = {},
                        const Past& past = {});

  StackSpec spec;
  double norm_eps;
  std::vector<Block> layers;
  torch::Tensor norm;
};

/// Level l: chunker and encoder up to its units, converter and decoder down to the units of level l-1.
struct Level {
  Level(torch::nn::Module& model, const Spec& spec, int64_t l);
  /// X⁽ˡ⁻¹⁾ [B, M·C, D_{l-1}] -> X⁽ˡ⁾ [B, M, D_l].
  torch::Tensor encode(const torch::Tensor& below, torch::ScalarType dtype);
  /// cond⁽ˡ⁾ [B, M, W], content X⁽ˡ⁻¹⁾ or that of decoder_embed [B, M·C, …] -> X̂⁽ˡ⁻¹⁾ [B, M·C, E_l].
  torch::Tensor decode(const torch::Tensor& cond, const torch::Tensor& content, torch::ScalarType dtype,
                       const Past& past = {});

  LevelSpec spec;
  double norm_eps;
  torch::Tensor chunker_norm, chunker, chunker_bias;      // undefined where the spec has none
  torch::Tensor converter, converter_bias, content_proj;  // the last two likewise
  Stack encoder, decoder;
};

}  // namespace modules

/// Teacher-forced model over whole sequences.  Parameters carry the names and shapes of tensors(spec) and are float32;
/// compute_dtype is what matrix products and activations use (bf16 autocast: the residual stream, norm statistics,
/// softmax and loss stay float32).  Not thread-safe.
class Photon final : public torch::nn::Module {
 public:
  explicit Photon(const Spec& spec, const InitOptions& init = {}) : Photon(spec, InitialSource(spec, init)) {}
  Photon(const Spec& spec, const TensorSource& source);

  struct Output {
    torch::Tensor logits;    // [B, T, V]; logits_i predicts token i itself
    torch::Tensor rec_loss;  // scalar L_rec; 0 where it sums no level
  };
  /// tokens [B, T] int64, any T >= 1.
  Output forward(const torch::Tensor& tokens, RecLevels rec_levels = RecLevels::above_tokens);

  struct Loss {
    torch::Tensor total;  // token + alpha · rec, differentiable
    torch::Tensor token;  // mean cross entropy of every token given those before it, nats
    torch::Tensor rec;    // L_rec
  };
  Loss loss(const torch::Tensor& tokens, double alpha = 0.0, RecLevels rec_levels = RecLevels::above_tokens);

  /// float32, bfloat16 (autocast), or float64 after to(torch::kFloat64) for gradient checks.
  void set_compute_dtype(torch::ScalarType dtype) { compute_dtype_ = dtype; }
  /// How far the stack that predicts tokens sees from now on, where its span has a size; spec() stays what it is.
  void set_token_span(int64_t size);
  const Spec& spec() const { return spec_; }
  /// The parameters in the order of tensors(spec).
  std::vector<std::pair<std::string, torch::Tensor>> weights() const;

 private:
  std::vector<torch::Tensor> encode(const torch::Tensor& tokens);  // X⁽⁰⁾ … X⁽ᴸ⁾
  // From X and what the decoders read of it: X̂⁽⁰⁾ … X̂⁽ᴸ⁻¹⁾.
  std::vector<torch::Tensor> decode(const torch::Tensor& top, const std::vector<torch::Tensor>& content);
  torch::Tensor rec_loss(const std::vector<torch::Tensor>& content, const std::vector<torch::Tensor>& X_hat, int64_t T,
                         RecLevels rec_levels) const;
  modules::Past past(const torch::Tensor& tokens, const torch::Tensor& units) const;
  struct Hidden {
    torch::Tensor last;      // X̂⁽⁰⁾ or the trunk's output, [B, T, E_1]
    torch::Tensor rec_loss;  // scalar
  };
  Hidden hidden(const torch::Tensor& tokens, RecLevels rec_levels, bool differentiable_rec_loss);
  const torch::Tensor& head_weight() const;  // [V, E_1]

  Spec spec_;
  torch::ScalarType compute_dtype_ = torch::kFloat32;
  torch::Tensor embed_, decoder_embed_, start_, lm_head_;  // undefined where the spec has none
  std::vector<modules::Level> levels_;                     // levels_[0] is level 1
  std::optional<modules::Stack> trunk_;                    // vanilla only
  std::vector<modules::Memory> memories_;                  // of the level-1 decoder or the trunk
};

}  // namespace photon
