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
  enum class Queries { plain, rotated };
  /// Each row reads those of a block's memories whose keys want such queries.  x [n, >= H*h] begins with them.  What
  /// they show joins the softmax of write_and_attend().  Plain queries come first in a block.
  void ask_memory(std::span<const MemoryWeights> memories, std::int64_t layer, MatView<const float> x, Queries queries);
  /// Writes keys and values of qkv [n, (H + 2K)*h] into a layer of the rows' caches; att [n, H*h] is what each row
  /// sees. Rows without output attend only if another layer follows.
  void write_and_attend(std::int64_t layer, MatView<const float> qkv, MatView<float> att);
  struct RememberedUnit {
    KvCache* cache = nullptr;
    std::int64_t unit = 0, position = 0;  // position: that its key is rotated by, where keys are
  };
  /// Writes the keys and values of top-level units x [n, D_L] into their sequences' memories.
  void remember(const MemoryWeights& memory, const StackSpec& stack, MatView<const float> x,
                std::span<const RememberedUnit> units);
  /// Moves the rows with output to the front, of x and of att; returns those of x.
  MatView<float> keep_outputs(MatView<float> x, MatView<float> att) const;

  Work work;
  Profile profile;  // off until enabled

 private:
  // Softmaxes over disjoint sets of positions, a head's numbers beside those of the others.
  struct Shown {
    Matrix<float> out, top, sum;  // [n, H·h], [n, H] largest score, [n, H] Σ exp(score - top); sum 0: nothing seen
  };
  struct Text {  // of the rows at hand
    const TextMemory* text = nullptr;
    std::vector<std::int32_t> ids;  // that occur, ascending
    std::vector<const std::byte*> pages;
  };
  struct TextScratch {  // of a thread, text_memory.h
    Matrix<float> table, weights;
    std::vector<std::int32_t> weighed;
  };
  bool attends(std::int64_t row, std::int64_t layer) const;
  void find_texts();
  void read_text(const MemoryWeights& memory, std::int64_t layer, MatView<const float> q);
  void read_text_rows(const MemoryWeights& memory, std::span<const std::int64_t> rows, MatView<const float> q);
  void read_units(const MemoryWeights& memory, std::int64_t layer, MatView<const float> q);
  void join_memory(std::int64_t layer, MatView<float> att);
  void multiply(const Inputs& x, const PackedWeight& w, MatView<float> y, Epilogue epilogue, Profile::Part part);

  const Model& model_;
  float norm_eps_;
  InputForm form_;
  Inputs converted_;
  const StackSpec* stack_ = nullptr;
  RowPlan plan_, global_plan_;            // for the stack's span; for the blocks that see everything, where there are
  Matrix<float> cos_sin_;                 // [n, 2·(h/2)]
  std::vector<std::vector<KvRun>> runs_;  // one list a thread

  // memory
  bool asked_ = false;
  Shown shown_, own_;  // by the memories; of the span's softmax, top and sum
  std::vector<Text> texts_;
  std::vector<std::int64_t> text_of_;  // [n] index into texts_
  std::vector<PanelRange> panels_;     // of the tables: ids of any of the texts
  std::vector<std::int64_t> asking_;   // rows
  std::vector<float> log_distances_;   // ln(1 + d)
  Matrix<float> queries_, scores_;     // [rows of a call·H, h], [… , context·V]
  Inputs query_inputs_;
  std::vector<TextScratch> text_scratch_;
  Matrix<float> part_out_, part_top_, part_sum_;
  Matrix<float> units_, unit_kv_, unit_angles_;
};

}  // namespace photon
