// llama-compare: holds llama.cpp's view of an exported model against ours: tokens, logits, greedy text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "base/threads.h"
#include "engine/generate.h"
#include "engine/reference.h"
#include "llama_model.h"
#include "text/tokenizer.h"

namespace {

using Tokens = std::vector<std::int32_t>;

struct Arguments {
  std::string folder, gguf, text;
  std::int64_t n_tokens = 256;
  double tolerance = 1e-3;
};

// logits[i] of token i + 1 given bos and the tokens before it: the vanilla model's own convention.
std::vector<std::vector<float>> llama_logits(llama_cpp::Model& model, const Tokens& tokens, std::int32_t bos) {
  model.open_context(
      {.positions = std::ssize(tokens) + 1, .threads = photon::usable_cpus(), .all_logits = true, .f32_cache = true});
  std::vector<llama_cpp::Row> rows{{bos, 0, 0, true}};
  for (const auto token : tokens) rows.push_back({token, static_cast<llama_pos>(rows.size()), 0, true});
  model.decode(rows);
  std::vector<std::vector<float>> logits;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto values = model.logits(static_cast<std::int64_t>(i));
    logits.emplace_back(values.begin(), values.end());
  }
  return logits;
}

Tokens llama_greedy(llama_cpp::Model& model, std::int64_t n, std::int32_t bos) {
  model.open_context({.positions = n, .threads = photon::usable_cpus(), .f32_cache = true});
  Tokens tokens;
  for (std::int32_t token = bos; std::ssize(tokens) < n; tokens.push_back(token)) {
    const llama_cpp::Row row{token, static_cast<llama_pos>(tokens.size()), 0, true};
    model.decode({&row, 1});
    const auto logits = model.logits(0);
    token = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  return tokens;
}

Tokens llama_tokens(const llama_cpp::Model& model, const std::string& text) {
  Tokens tokens(text.size() + 16);
  const auto n = llama_tokenize(model.vocabulary(), text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                                static_cast<std::int32_t>(tokens.size()), /*add_special=*/false,
                                /*parse_special=*/false);
  if (n < 0) throw std::runtime_error("llama_tokenize needs more room than the text has bytes");
  tokens.resize(static_cast<std::size_t>(n));
  return tokens;
}

double log_prob(const std::vector<float>& logits, std::int32_t token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - most - std::log(sum);
}

class Report {
 public:
  void line(const std::string& what, const std::string& found, bool good) {
    fmt::print("{:<58} {:>24}  {}\n", what, found, good ? "ok" : "DIFFERS");
    good_ = good_ && good;
  }
  void difference(const std::string& what, double found, double tolerance) {
    line(what, fmt::format("max {:.2e}", found), found <= tolerance);
  }
  bool good() const { return good_; }

 private:
  bool good_ = true;
};

void compare_logits(const std::string& name, const Tokens& tokens, const Arguments& arguments, photon::Engine& engine,
                    llama_cpp::Model& model, Report& report) {
  const auto bos = static_cast<std::int32_t>(engine.spec().bos_token_id);
  const auto theirs = llama_logits(model, tokens, bos);
  const auto reference = photon::reference_logits(arguments.folder, tokens);
  const auto ours = engine.score(tokens);
  double logit_difference = 0, log_prob_difference = 0;
  for (std::size_t i = 0; i < theirs.size(); ++i)
    for (std::size_t v = 0; v < theirs[i].size(); ++v)
      logit_difference = std::max(logit_difference, std::abs(static_cast<double>(theirs[i][v]) - reference[i][v]));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    log_prob_difference =
        std::max(log_prob_difference, std::abs(log_prob(theirs[i], tokens[i]) - static_cast<double>(ours.logprobs[i])));
  const std::string of = fmt::format("{}, {} tokens", name, tokens.size());
  report.difference(of + ": all logits, to our float64 ones", logit_difference, arguments.tolerance);
  report.difference(of + ": log-probabilities, to the engine's", log_prob_difference, arguments.tolerance);
}

void compare_tokens(const Arguments& arguments, const llama_cpp::Model& model, Report& report) {
  const auto path = std::filesystem::path(arguments.folder) / "tokenizer.model";
  if (!std::filesystem::exists(path)) return;
  const photon::Tokenizer tokenizer(path);
  std::vector<std::string> texts = {
      "a", " a", "  two  spaces ", "line\nline\n\nend\n", "Zoë 12,345.67 €", "你好 🙂\t<s>"};
  if (!arguments.text.empty()) texts.push_back(photon::read_text(arguments.text).substr(0, 1 << 20));
  std::size_t n = 0, wrong = 0;
  for (const std::string& text : texts) {
    const Tokens ours = tokenizer.encode(text), theirs = llama_tokens(model, text);
    n += ours.size();
    if (ours != theirs) ++wrong;
  }
  report.line(fmt::format("tokenizer, {} texts, {} tokens", texts.size(), n), fmt::format("{} texts differ", wrong),
              wrong == 0);
}

bool run(const Arguments& arguments) {
  photon::Engine engine(arguments.folder, {.weights = photon::DType::f32, .kv = photon::DType::f32});
  llama_cpp::Model model(arguments.gguf);
  if (model.vocab_size() != engine.spec().vocab_size)
    throw std::runtime_error("the two models have vocabularies of different sizes");
  Report report;
  compare_tokens(arguments, model, report);

  const photon::Request request{.n_tokens = arguments.n_tokens, .sampler = {.temperature = 0}, .ignore_eos = true};
  const Tokens ours = engine.generate(request).tokens();
  const Tokens theirs = llama_greedy(model, arguments.n_tokens, static_cast<std::int32_t>(engine.spec().bos_token_id));
  const auto [end, other] = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  report.line("greedy text", fmt::format("{} of {} tokens equal", end - ours.begin(), ours.size()), ours == theirs);

  compare_logits("greedy text", ours, arguments, engine, model, report);
  photon::Random random(1);
  Tokens noise;
  for (std::int64_t i = 0; i < arguments.n_tokens; ++i)
    noise.push_back(static_cast<std::int32_t>(random.below(engine.spec().vocab_size)));
  compare_logits("random tokens", noise, arguments, engine, model, report);
  return report.good();
}

}  // namespace

int main(int argc, char** argv) {
  photon::start_with(photon::openmp_settings(), argv);
  CLI::App app{"Holds llama.cpp's logits of an exported model against ours; float32 caches on both sides"};
  Arguments arguments;
  app.add_option("folder", arguments.folder, "Model folder without levels")->required();
  app.add_option("gguf", arguments.gguf, "What `photon export` made of it; --dtype f32 for the strict comparison")
      ->required();
  app.add_option("--tokens", arguments.n_tokens, "Tokens of each text")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{2047}))
      ->capture_default_str();
  app.add_option("--text", arguments.text, "UTF-8 text that both tokenizers split, too (its first MiB)");
  app.add_option("--tolerance", arguments.tolerance, "Largest difference that passes")->capture_default_str();
  try {
    app.parse(argc, argv);
    llama_cpp::quiet();
    llama_backend_init();
    return run(arguments) ? 0 : 1;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "llama-compare: {}\n", e.what());
    return 1;
  }
}
