// The operations that a forward pass is written in, over batches of rows: on the CPU, shared among the threads, timed
// and counted.  Whoever calls them sees equations; another device would implement the same verbs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "engine/model.h"
#include "engine/profile.h"
#include "engine/rows.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace photon {

/// What was done: counted, not estimated.
struct Work {
  std::int64_t weight_bytes_read = 0;  // of matrices: each once a call, whatever the number of rows
  double matmul_flops = 0;             // a multiply-add is two
  double attention_flops = 0;          // QKᵀ and AV over what rows see
  friend Work operator-(const Work& a, const Work& b) {
    return {a.weight_bytes_read - b.weight_bytes_read, a.matmul_flops - b.matmul_flops,
            a.attention_flops - b.attention_flops};
  }
};

/// Keeps buffers between calls.  For one thread, which shares its work over threads().  A row's result depends on its
/// own inputs and its cache alone, bit for bit.
class Ops {
 public:
  explicit Ops(const Model& model);

  // ---- rows of numbers ----

  /// x [n, D_0] = the embeddings of tokens.
  void embed(std::span<const std::int32_t> tokens, MatView<float> x) const;
  /// x [n, E_1] = what the level-1 decoder reads of tokens, in a model with decoder_embedding.
  void embed_for_decoder(std::span<const std::int32_t> tokens, MatView<float> x) const;
  /// Row r of x [n, width] becomes the numbers at rows[r].
  void gather(std::span<const float* const> rows, MatView<float> x) const;
  /// Every row of x [n, D] += bias; an empty bias is none.
  void add_bias(MatView<float> x, std::span<const float> bias) const;
  /// x [n, D] = RMSNorm(x) ∘ w, in place.
  void norm(MatView<float> x, std::span<const float> w);

  // ---- products ----

  /// normed = RMSNorm(x) ∘ w, in the form in which products read it.
  void norm(MatView<const float> x, std::span<const float> w, Inputs& normed);
  /// y [n, o] = x wᵀ, or what the epilogue makes of it.
  void product(const Inputs& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue = Epilogue::set);
  void product(MatView<const float> x, const PackedWeight& w, MatView<float> y, Epilogue epilogue = Epilogue::set);
  /// logits [n, V] = x wᵀ: a product that the profile tells apart.
  void head(MatView<const float> x, const PackedWeight& w, MatView<float> logits);

  // ---- the rows of a stack: begin(), then its blocks ----

  /// Makes room in the caches for the positions of rows, and prepares what all blocks share.  Borrows the rows.
  void begin(const StackSpec& stack, std::span<const Row> rows);
  /// RoPE of every head of x [n, heads*h], in place.
  void rotate(MatView<float> x);
  /// Writes keys and values of qkv [n, (H + 2K)*h] into a layer of the rows' caches; att [n, H*h] is what each row
  /// sees. Rows without output attend only if another layer follows.
  void write_and_attend(std::int64_t layer, MatView<const float> qkv, MatView<float> att);
  /// Moves the rows with output to the front, of x and of att; returns those of x.
  MatView<float> keep_outputs(MatView<float> x, MatView<float> att) const;

  Work work;
  Profile profile;  // off until enabled

 private:
  void multiply(const Inputs& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue, Profile::Part part);

  const Model& model_;
  float norm_eps_;
  InputForm form_;
  Inputs converted_;
  const StackSpec* stack_ = nullptr;
  RowPlan plan_;
  Matrix<float> cos_sin_;                 // [n, 2·(h/2)]
  std::vector<std::vector<KvRun>> runs_;  // one list a thread
};

}  // namespace photon
