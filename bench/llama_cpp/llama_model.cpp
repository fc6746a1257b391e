#include "llama_model.h"

#include <cstdio>
#include <stdexcept>

namespace llama_cpp {

void quiet() {
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        static bool shown = false;  // a continued line is shown if its beginning was
        if (level != GGML_LOG_LEVEL_CONT) shown = level >= GGML_LOG_LEVEL_ERROR;
        if (shown) std::fputs(text, stderr);
      },
      nullptr);
}

Model::Model(const std::string& gguf) : model_(llama_model_load_from_file(gguf.c_str(), llama_model_default_params())) {
  if (!model_) throw std::runtime_error(gguf + ": llama.cpp cannot load it");
}

void Model::open_context(const ContextOptions& options) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(options.positions);
  params.n_seq_max = static_cast<std::uint32_t>(options.sequences);
  params.n_threads = params.n_threads_batch = static_cast<std::int32_t>(options.threads);
  if (options.all_logits) params.n_outputs_max_per_seq = params.n_batch;
  if (options.f32_cache) {
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  }
  context_.reset();
  context_.reset(llama_init_from_model(model_.get(), params));
  if (!context_) throw std::runtime_error("llama.cpp cannot create a context; is there memory for its caches?");
}

void Model::decode(std::span<const Row> rows) {
  llama_batch batch = llama_batch_init(static_cast<std::int32_t>(rows.size()), 0, 1);
  const std::unique_ptr<llama_batch, void (*)(llama_batch*)> owner(&batch,
                                                                   [](llama_batch* b) { llama_batch_free(*b); });
  batch.n_tokens = static_cast<std::int32_t>(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    batch.token[i] = rows[i].token;
    batch.pos[i] = rows[i].position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = rows[i].sequence;
    batch.logits[i] = rows[i].wants_logits ? 1 : 0;
  }
  if (const auto status = llama_decode(context(), batch); status != 0)
    throw std::runtime_error("llama_decode failed with status " + std::to_string(status));
  llama_synchronize(context());
}

std::span<const float> Model::logits(std::int64_t i) const {
  const float* values = llama_get_logits_ith(context(), static_cast<std::int32_t>(i));
  if (values == nullptr) throw std::runtime_error("llama.cpp has no logits for that row");
  return {values, static_cast<std::size_t>(vocab_size())};
}

}  // namespace llama_cpp
