// llama-speed: llama.cpp's side of the comparison.  Measures one thing once and prints a JSON object; run.py calls it
// in turn with `photon bench`.
#include <gguf.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "llama_model.h"

namespace llama_cpp {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string gguf, state;
  std::int64_t streams = 1, context = 0, tokens = 64, threads = 1;
};

// What one pass over the weights reads: all matrices but the embedding, of which it takes a few rows.
std::int64_t weight_bytes(const std::string& path) {
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> file(gguf_init_from_file(path.c_str(), {true, nullptr}),
                                                                 &gguf_free);
  if (!file) throw std::runtime_error(path + ": no GGUF file");
  const bool tied = gguf_find_tensor(file.get(), "output.weight") < 0;
  std::int64_t bytes = 0;
  for (std::int64_t i = 0; i < gguf_get_n_tensors(file.get()); ++i)
    if (tied || gguf_get_tensor_name(file.get(), i) != std::string("token_embd.weight"))
      bytes += static_cast<std::int64_t>(gguf_get_tensor_size(file.get(), i));
  return bytes;
}

std::int64_t kv_bytes_per_position(const Model& model) {
  char text[32] = {};
  llama_model_meta_val_str(model.model(), "llama.attention.key_length", text, sizeof text);
  constexpr std::int64_t f16_bytes = 2;
  return 2 * f16_bytes * llama_model_n_layer(model.model()) * llama_model_n_head_kv(model.model()) * std::stoll(text);
}

class RandomTokens {
 public:
  explicit RandomTokens(std::int64_t vocab_size) : ids_(0, static_cast<llama_token>(vocab_size - 1)) {}
  llama_token operator()() { return ids_(generator_); }

 private:
  std::mt19937 generator_{1};
  std::uniform_int_distribution<llama_token> ids_;
};

// Sequence 0 from position 0 on; logits of the last token only, as for a prompt.
void prefill(Model& model, std::int64_t n, RandomTokens& random) {
  const std::int64_t batch = llama_n_batch(model.context());
  std::vector<Row> rows;
  for (std::int64_t i = 0; i < n; ++i) {
    rows.push_back({random(), static_cast<llama_pos>(i), 0, i + 1 == n});
    if (std::ssize(rows) == batch || i + 1 == n) {
      model.decode(rows);
      rows.clear();
    }
  }
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Tokens per second of a prompt.
double measure_prefill(const Arguments& arguments, Model& model, RandomTokens& random) {
  model.open_context({.positions = arguments.tokens, .sequences = 1, .threads = arguments.threads});
  prefill(model, std::min<std::int64_t>(arguments.tokens, 512), random);  // buffers and pages are there
  llama_memory_clear(llama_get_memory(model.context()), false);
  const auto start = Clock::now();
  prefill(model, arguments.tokens, random);
  return static_cast<double>(arguments.tokens) / seconds_since(start);
}

// Every sequence gets a cache of its own with `context` positions.  One sequence's are computed once and kept in a
// file, since speed does not depend on what the cache holds; llama.cpp cannot load that file into a context of several
// streams.
void fill(const Arguments& arguments, Model& model, RandomTokens& random) {
  std::vector<llama_token> tokens(static_cast<std::size_t>(arguments.context));
  std::size_t n = 0;
  const bool keep = !arguments.state.empty() && arguments.streams == 1;
  if (keep && std::filesystem::exists(arguments.state)) {
    const std::size_t bytes =
        llama_state_seq_load_file(model.context(), arguments.state.c_str(), 0, tokens.data(), tokens.size(), &n);
    if (bytes == 0 || std::cmp_not_equal(n, arguments.context))
      throw std::runtime_error(arguments.state + ": is no state of this model and context; delete it");
  } else {
    prefill(model, arguments.context, random);
    if (keep) {
      const std::string temporary = arguments.state + ".part";
      llama_state_seq_save_file(model.context(), temporary.c_str(), 0, tokens.data(), tokens.size());
      std::filesystem::rename(temporary, arguments.state);
    }
  }
  for (std::int64_t s = 1; s < arguments.streams; ++s)
    llama_memory_seq_cp(llama_get_memory(model.context()), 0, static_cast<llama_seq_id>(s), -1, -1);
  for (std::int64_t s = 0; s < arguments.streams; ++s)
    if (llama_memory_seq_pos_max(llama_get_memory(model.context()), static_cast<llama_seq_id>(s)) !=
        static_cast<llama_pos>(arguments.context) - 1)
      throw std::runtime_error("a sequence's cache does not hold its context");
}

// Tokens per second of all streams together, from `context` tokens on; no sampling.
double measure_decode(const Arguments& arguments, Model& model, RandomTokens& random) {
  constexpr std::int64_t warm_up = 2;  // the first step also carries out the copies of fill()
  const std::int64_t per_stream = arguments.context + warm_up + arguments.tokens;
  constexpr std::int64_t cells = 256;  // llama.cpp gives every stream a multiple of these
  model.open_context({.positions = (per_stream + cells - 1) / cells * cells * arguments.streams,
                      .sequences = arguments.streams,
                      .threads = arguments.threads});
  if (arguments.context > 0) fill(arguments, model, random);
  std::vector<Row> rows(static_cast<std::size_t>(arguments.streams));
  auto start = Clock::now();
  for (std::int64_t step = 0; step < warm_up + arguments.tokens; ++step) {
    if (step == warm_up) start = Clock::now();
    for (std::size_t s = 0; s < rows.size(); ++s)
      rows[s] = {random(), static_cast<llama_pos>(arguments.context + step), static_cast<llama_seq_id>(s), true};
    model.decode(rows);
  }
  return static_cast<double>(arguments.streams * arguments.tokens) / seconds_since(start);
}

void run(const Arguments& arguments, bool decode) {
  Model model(arguments.gguf);
  RandomTokens random(model.vocab_size());
  const double tokens_per_s =
      decode ? measure_decode(arguments, model, random) : measure_prefill(arguments, model, random);
  const std::int64_t kv = kv_bytes_per_position(model);
  const double mean_context = static_cast<double>(arguments.context) + 0.5 * static_cast<double>(arguments.tokens);
  char description[64] = {};
  llama_model_desc(model.model(), description, sizeof description);
  std::cout << nlohmann::ordered_json{{"engine", "llama.cpp"},
                                      {"description", description},
                                      {"threads", arguments.threads},
                                      {"streams", arguments.streams},
                                      {"context", arguments.context},
                                      {"tokens", arguments.tokens},
                                      {"tokens_per_s", tokens_per_s},
                                      {"kv_bytes", kv * (arguments.context + arguments.tokens) * arguments.streams},
                                      {"kv_bytes_read_per_token", static_cast<double>(kv) * mean_context},
                                      {"weight_bytes_per_pass", weight_bytes(arguments.gguf)}}
                   .dump()
            << std::endl;
}

void quantize(const std::string& input, const std::string& output, std::int64_t threads) {
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
  params.nthread = static_cast<std::int32_t>(threads);
  if (llama_model_quantize(input.c_str(), output.c_str(), &params) != 0)
    throw std::runtime_error(input + ": llama.cpp cannot quantise it");
}

}  // namespace
}  // namespace llama_cpp

int main(int argc, char** argv) {
  CLI::App app{"llama.cpp's speed, measured once"};
  app.require_subcommand(1);
  llama_cpp::Arguments arguments;
  std::string output;
  const auto positive = CLI::Range(std::int64_t{1}, std::int64_t{1} << 30);
  const auto add = [&](const char* name, const char* description) {
    CLI::App* command = app.add_subcommand(name, description);
    command->add_option("gguf", arguments.gguf, "GGUF file")->required();
    command->add_option("--threads", arguments.threads, "Threads")->check(positive)->capture_default_str();
    return command;
  };
  CLI::App* prefill = add("prefill", "Tokens per second of a prompt");
  prefill->add_option("--tokens", arguments.tokens, "Tokens of the prompt")->check(positive)->required();
  CLI::App* decode = add("decode", "Tokens per second of some streams together");
  decode->add_option("--context", arguments.context, "Tokens that each stream has in its cache")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30))
      ->capture_default_str();
  decode->add_option("--streams", arguments.streams, "Sequences")->check(positive)->capture_default_str();
  decode->add_option("--tokens", arguments.tokens, "Tokens per stream")->check(positive)->capture_default_str();
  decode->add_option("--state", arguments.state, "File that keeps the computed cache for the next time");
  CLI::App* quantize = add("quantize", "Write a q8_0 copy with llama.cpp's quantiser");
  quantize->add_option("output", output, "GGUF file to write")->required();
  try {
    app.parse(argc, argv);
    llama_cpp::quiet();
    llama_backend_init();
    if (quantize->parsed())
      llama_cpp::quantize(arguments.gguf, output, arguments.threads);
    else
      llama_cpp::run(arguments, decode->parsed());
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::cerr << "llama-speed: " << e.what() << '\n';
    return 1;
  }
  return 0;
}
