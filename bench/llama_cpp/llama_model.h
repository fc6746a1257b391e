// llama.cpp's C interface, as far as these programs need it, with owners and errors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llama.h"

namespace llama_cpp {

struct ContextOptions {
  std::int64_t positions = 512;  // of all sequences together
  std::int64_t sequences = 1;
  std::int64_t threads = 1;
  bool all_logits = false;  // of every token, not of each sequence's last alone
  bool f32_cache = false;   // keys and values in float32 without flash attention, in place of llama.cpp's defaults
};

/// A token of one sequence to be computed.
struct Row {
  llama_token token = 0;
  llama_pos position = 0;
  llama_seq_id sequence = 0;
  bool wants_logits = false;
};

/// A loaded model with one context.  Everything that is not set is llama.cpp's default.
class Model {
 public:
  /// @throws std::runtime_error if llama.cpp refuses the file.
  explicit Model(const std::string& gguf);

  /// Begins with empty caches.  @throws std::runtime_error if the memory does not suffice.
  void open_context(const ContextOptions& options);
  void close_context() { context_.reset(); }
  llama_context* context() const { return context_.get(); }
  const llama_model* model() const { return model_.get(); }
  const llama_vocab* vocabulary() const { return llama_model_get_vocab(model_.get()); }
  std::int64_t vocab_size() const { return llama_vocab_n_tokens(vocabulary()); }

  /// One llama_decode(), finished when it returns; at most llama_n_batch() rows.
  void decode(std::span<const Row> rows);
  /// Logits of row i of the last decode(), which wanted them.  [V]
  std::span<const float> logits(std::int64_t i) const;

 private:
  template <auto free>
  struct Free {
    template <class T>
    void operator()(T* object) const {
      free(object);
    }
  };
  std::unique_ptr<llama_model, Free<llama_model_free>> model_;
  std::unique_ptr<llama_context, Free<llama_free>> context_;
};

/// Only warnings and errors of llama.cpp reach stderr.
void quiet();

}  // namespace llama_cpp
