// photon generate: text from a model, streamed, with statistics; two models side by side with --compare.
#include "engine/generate.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/progress_line.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "kernels/ceilings.h"
#include "kernels/kernels.h"
#include "text/text_stream.h"
#include "text/utf8.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct GenerateArguments {
  EngineArguments engine;
  std::string prompt, prompt_file, tokens, compare, protocol = "hiergen";
  std::optional<Argument> prompt_option;
  std::optional<Argument> seed_option;
  double kv_budget_gb = 0;
  Request request{.n_tokens = 128, .sampler = readable_text()};
  bool stats = false, json = false, quiet = false;
};

struct Result {
  std::string model;
  Protocol protocol = Protocol::hiergen;
  std::int64_t parameters = 0;
  std::string dtype, kv_dtype;
  std::vector<std::string> texts{};  // of each continuation
  Generation generation{};
};

std::vector<std::int32_t> prompt_of(const GenerateArguments& arguments, const Engine& engine,
                                    const std::optional<Tokenizer>& tokenizer) {
  const bool from_file = !arguments.prompt_file.empty();
  if (!arguments.prompt_option->given() && !from_file) {
    try {
      return parse_token_ids(arguments.tokens);
    } catch (const InputError& e) {
      throw InputError(fmt::format("--tokens: {}", e.what()));
    }
  }
  if (!tokenizer)
    throw InputError(fmt::format("{}: has no tokenizer.model, so a text cannot be encoded; use --tokens 1,2,3",
                                 engine.model().folder->path.string()));
  const std::string text = from_file ? read_text(arguments.prompt_file) : arguments.prompt;
  if (!is_valid_utf8(text))
    throw InputError(fmt::format("{}: is not valid UTF-8", from_file ? arguments.prompt_file : "--prompt"));
  std::vector<std::int32_t> tokens = tokenizer->encode(text);
  tokens.insert(tokens.begin(), static_cast<std::int32_t>(engine.spec().bos_token_id));
  return tokens;
}

// "reading 12288/40960 tokens, 8123 tokens/s, 3s left", for prompts that take a while.
class PromptProgress {
 public:
  explicit PromptProgress(std::int64_t n_tokens) : n_tokens_(n_tokens) {}

  void show(std::int64_t consumed) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const bool last = consumed >= n_tokens_;
    if (seconds < next_ || (last && next_ == first_)) return;
    next_ = seconds + (line_.on_terminal() ? 0.1 : 10);
    const double rate = static_cast<double>(consumed) / seconds;
    line_.show(fmt::format("reading {}/{} tokens, {:.0f} tokens/s, {} left", consumed, n_tokens_, rate,
                           duration_text(static_cast<double>(n_tokens_ - consumed) / rate)));
    if (last) line_.finish();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double first_ = 0.5;  // seconds without a word
  std::int64_t n_tokens_;
  Clock::time_point start_ = Clock::now();
  double next_ = first_;
  ProgressLine line_;
};

// Generates with the model of one folder; streams to `out`, if any, prompt first.
Result run(const GenerateArguments& arguments, const std::string& folder, Request request, std::ostream* out) {
  Engine engine = arguments.engine.open(folder);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(engine.model());
  const std::vector<std::int32_t>& prompt = request.prompt = prompt_of(arguments, engine, tokenizer);
  Result result{.model = folder,
                .protocol = request.protocol,
                .parameters = count_parameters(engine.spec()).total,
                .dtype = std::string(to_string(engine.model().dtype)),
                .kv_dtype = std::string(to_string(engine.model().kv))};
  spdlog::info("{}: {} levels, {:.1f} M parameters, {}; {}; seed {}; {}, {} threads", folder, engine.spec().n_levels(),
               static_cast<double>(result.parameters) * 1e-6, result.dtype, to_string(request.protocol),
               request.sampler.seed, kernels().name, threads());

  const auto n = static_cast<std::size_t>(request.n_continuations);
  std::vector<TextStream> streams(n, TextStream(tokenizer ? &*tokenizer : nullptr, prompt));
  result.texts.resize(n);
  const bool stream =
      out != nullptr && n == 1 && !arguments.quiet;  // several continuations come one after another at the end
  if (out != nullptr && !arguments.quiet) {
    if (tokenizer && arguments.prompt_file.empty())  // whoever gives a file has it
      *out << (arguments.prompt_option->given() ? arguments.prompt : tokenizer->decode(prompt)) << std::flush;
    else
      *out << arguments.tokens << std::flush;
  }
  const auto write = [&](std::size_t i, const std::string& text) {
    result.texts[i] += text;
    if (stream && !text.empty()) *out << text << std::flush;
  };
  const auto on_token = [&](std::size_t i, std::int32_t token) {
    write(i, streams[i].add(token));
    return out == nullptr || out->good();
  };
  PromptProgress progress(std::ssize(prompt));
  result.generation = engine.generate(request, on_token, static_cast<std::int64_t>(arguments.kv_budget_gb * 1e9),
                                      [&](std::int64_t consumed) { progress.show(consumed); });
  for (std::size_t i = 0; i < n; ++i) write(i, streams[i].finish());
  if (out != nullptr && !arguments.quiet) {
    if (!stream)
      for (std::size_t i = 0; i < n; ++i)
        *out << fmt::format("\n\n--- continuation {} of {} ---\n{}", i + 1, n, result.texts[i]);
    *out << std::endl;
    if (!out->good()) throw Error("standard output: cannot be written");
  }
  return result;
}

ordered_json to_json(const Result& r, std::uint64_t seed, double memory_gb_per_s) {
  const RequestStats& s = r.generation.stats;
  const auto n_decoded = static_cast<double>(std::max<std::int64_t>(1, s.decode_tokens));
  ordered_json stats{
      {"protocol", to_string(r.protocol)},
      {"dtype", r.dtype},
      {"kv_dtype", r.kv_dtype},
      {"isa", kernels().name},
      {"threads", threads()},
      {"seed", seed},
      {"parameters", r.parameters},
      {"prompt_tokens", s.prompt_tokens},
      {"generated_tokens", s.generated_tokens},
      {"stopped_at_eos", r.generation.continuations.front().stopped_at_eos},
      {"prefill_ms", s.prefill_ms},
      {"prefill_tokens_per_s", s.prefill_tokens_per_s()},
      {"decode_tokens", s.decode_tokens},
      {"decode_ms", s.decode_ms},
      {"decode_tokens_per_s", s.decode_tokens_per_s()},
      {"context_tokens", s.context_tokens},
      {"kv_bytes_growing", s.kv_bytes_growing},
      {"kv_bytes_constant", s.kv_bytes_constant},
      {"kv_bytes_peak", r.generation.kv_bytes_peak},
      {"kv_bytes_read", s.prefill_kv.bytes_read + s.decode_kv.bytes_read},
      {"kv_bytes_written", s.prefill_kv.bytes_written + s.decode_kv.bytes_written},
      {"decode_kv_bytes_read_per_token", static_cast<double>(s.decode_kv.bytes_read) / n_decoded},
      {"decode_weight_bytes_read_per_token", static_cast<double>(s.decode_weight_bytes_read) / n_decoded},
      {"decode_gb_per_s", s.decode_gb_per_s()}};
  if (memory_gb_per_s > 0) stats["memory_gb_per_s"] = memory_gb_per_s;
  ordered_json json{{"tokens", r.generation.tokens()}, {"text", r.texts.front()}, {"stats", stats}};
  if (r.texts.size() > 1)
    for (std::size_t i = 0; i < r.texts.size(); ++i) {
      const GeneratedTokens& c = r.generation.continuations[i];
      json["continuations"].push_back(
          {{"tokens", c.tokens}, {"text", r.texts[i]}, {"stopped_at_eos", c.stopped_at_eos}});
    }
  return json;
}

// 1234567 -> "1.23 MB".
std::string bytes_text(double bytes) {
  constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  std::size_t i = 0;
  for (; bytes >= 999.5 && i + 1 < std::size(units); ++i) bytes /= 1000;
  return fmt::format("{:.{}f} {}", bytes, i == 0 || bytes >= 99.95 ? 0 : 2, units[i]);
}

void print_stats(const Result& r, double memory_gb_per_s) {
  const RequestStats& s = r.generation.stats;
  const double n_decoded = static_cast<double>(std::max<std::int64_t>(1, s.decode_tokens));
  fmt::print(stderr, "prefill   {:>10.1f} tokens/s   {} tokens in {:.1f} ms\n", s.prefill_tokens_per_s(),
             s.prompt_tokens, s.prefill_ms);
  fmt::print(stderr, "decode    {:>10.1f} tokens/s   {} tokens in {:.1f} ms\n", s.decode_tokens_per_s(),
             s.decode_tokens, s.decode_ms);
  fmt::print(stderr, "KV cache  {:>10} growing   + {} constant, at {} tokens of context; {} at its peak\n",
             bytes_text(static_cast<double>(s.kv_bytes_growing)), bytes_text(static_cast<double>(s.kv_bytes_constant)),
             s.context_tokens, bytes_text(static_cast<double>(r.generation.kv_bytes_peak)));
  fmt::print(stderr, "KV moved  {:>10} read, {} written; while decoding {} read per token\n",
             bytes_text(static_cast<double>(s.prefill_kv.bytes_read + s.decode_kv.bytes_read)),
             bytes_text(static_cast<double>(s.prefill_kv.bytes_written + s.decode_kv.bytes_written)),
             bytes_text(static_cast<double>(s.decode_kv.bytes_read) / n_decoded));
  fmt::print(stderr, "weights   {:>10} read per token; {:.1f} GB/s with the KV cache, where memory gives {:.1f}\n",
             bytes_text(static_cast<double>(s.decode_weight_bytes_read) / n_decoded), s.decode_gb_per_s(),
             memory_gb_per_s);
}

void print_comparison(const Result& a, const Result& b) {
  const auto row = [](const std::string& label, const std::string& x, const std::string& y, double ratio) {
    fmt::print("{:<28}{:>16}{:>16}{:>9}\n", label, x, y, ratio > 0 ? fmt::format("{:.1f}x", ratio) : "");
  };
  const auto name = [](const Result& r) {
    std::string folder = std::filesystem::path(r.model).lexically_normal().string();
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    return std::filesystem::path(folder).filename().string();
  };
  const auto speed = [&](const char* label, double x, double y) {
    row(label, fmt::format("{:.1f}", x), fmt::format("{:.1f}", y), y > 0 ? x / y : 0);
  };
  const auto bytes = [&](const char* label, double x, double y) {
    row(label, bytes_text(x), bytes_text(y), x > 0 ? y / x : 0);
  };
  const RequestStats &s = a.generation.stats, &t = b.generation.stats;
  const auto whole = [](const RequestStats& g) {
    return static_cast<double>(g.kv_bytes_growing + g.kv_bytes_constant);
  };
  const auto per_token = [](std::int64_t n, const RequestStats& g) {
    return static_cast<double>(n) / static_cast<double>(std::max<std::int64_t>(1, g.decode_tokens));
  };
  fmt::print("\n");
  row("", name(a), name(b), 0);
  row("protocol", std::string(to_string(a.protocol)), std::string(to_string(b.protocol)), 0);
  row("parameters", fmt::format("{:.2f} M", static_cast<double>(a.parameters) * 1e-6),
      fmt::format("{:.2f} M", static_cast<double>(b.parameters) * 1e-6), 0);
  row("tokens, prompt + generated", fmt::format("{} + {}", s.prompt_tokens, s.generated_tokens),
      fmt::format("{} + {}", t.prompt_tokens, t.generated_tokens), 0);
  const auto ms = [](double x) { return x < 1000 ? fmt::format("{:.1f} ms", x) : fmt::format("{:.2f} s", x / 1000); };
  row("time to the first token", ms(s.prefill_ms), ms(t.prefill_ms),
      s.prefill_ms > 0 ? t.prefill_ms / s.prefill_ms : 0);
  speed("prefill, tokens/s", s.prefill_tokens_per_s(), t.prefill_tokens_per_s());
  speed("decode, tokens/s", s.decode_tokens_per_s(), t.decode_tokens_per_s());
  bytes("KV cache", whole(s), whole(t));
  bytes("  of this growing", static_cast<double>(s.kv_bytes_growing), static_cast<double>(t.kv_bytes_growing));
  bytes("KV read per token", per_token(s.decode_kv.bytes_read, s), per_token(t.decode_kv.bytes_read, t));
  bytes("weights read per token", per_token(s.decode_weight_bytes_read, s), per_token(t.decode_weight_bytes_read, t));
}

void run_generate(GenerateArguments& arguments) {
  Request& request = arguments.request;
  request.protocol = parse_protocol(arguments.protocol);
  if (!arguments.seed_option->given()) {
    std::random_device entropy;
    request.sampler.seed = entropy();
  }
  check_options(request);
  const Result result = run(arguments, arguments.engine.model, request, arguments.json ? nullptr : &std::cout);
  const double memory_gb_per_s = arguments.stats ? ReadProbe().gb_s() : 0;

  std::optional<Result> other;
  if (!arguments.compare.empty()) {
    Request same_length = request;  // memory and speed depend on it
    same_length.n_tokens = 0;
    for (const GeneratedTokens& c : result.generation.continuations)
      same_length.n_tokens = std::max(same_length.n_tokens, std::ssize(c.tokens));
    same_length.ignore_eos = true;
    if (load_spec(arguments.compare).n_levels() == 0) same_length.protocol = Protocol::hiergen;
    other = run(arguments, arguments.compare, same_length, nullptr);
  }
  if (arguments.json) {
    ordered_json json = to_json(result, request.sampler.seed, memory_gb_per_s);
    if (other) json["compare"] = to_json(*other, request.sampler.seed, memory_gb_per_s);
    std::cout << json.dump() << std::endl;
    if (!std::cout.good()) throw Error("standard output: cannot be written");
    return;
  }
  if (arguments.stats) print_stats(result, memory_gb_per_s);
  if (other) print_comparison(result, *other);
}

}  // namespace

void add_generate(Command app) {
  auto arguments = std::make_shared<GenerateArguments>();
  Command command = app.subcommand("generate", "Continue a text, streaming it as it comes");
  Request& request = arguments->request;
  SamplerOptions& sampler = request.sampler;

  arguments->engine.add_to(command);
  Command source = command.group("prompt", "What to continue", 1, 1);
  arguments->prompt_option = source.option("-p,--prompt", arguments->prompt,
                                           "Text; may be empty.  The beginning of a document is put before it");
  source.option("-f,--prompt-file", arguments->prompt_file, "UTF-8 file with the text, which may be long");
  source.option("--tokens", arguments->tokens, "Token ids 1,2,3, taken literally; may be empty");
  command.option("-n,--n-tokens", request.n_tokens, "Tokens to generate at most");
  command.option("--n", request.n_continuations,
                 "Continuations of the prompt: they share its cache and are decoded together");
  command
      .option("--kv-budget", arguments->kv_budget_gb,
              "GB that KV caches may take; what cannot fit is refused (default: the memory that is left)")
      .range(0.0, 1e6)
      .no_default();
  command.option("--protocol", arguments->protocol, "hiergen: exact; recgen: the paper's, from the top stream alone")
      .one_of({"hiergen", "recgen"});
  command.option("--repetition-penalty", sampler.repetition_penalty,
                 "Weakens what occurred in the last 64 tokens; 1 does nothing");
  command.option("--temperature", sampler.temperature, "0 always takes the likeliest token");
  command.option("--top-k", sampler.top_k, "Draw from the k likeliest; 0: all");
  command.option("--top-p", sampler.top_p, "Draw from the likeliest that together have this probability; 1: all");
  command.option("--min-p", sampler.min_p, "Draw from those with this share of the likeliest's probability; 0: all");
  arguments->seed_option = command.option("--seed", sampler.seed, "Seed of the drawing (default: random, and printed)")
                               .check(&seed_problem)
                               .no_default();
  command.flag("--ignore-eos", request.ignore_eos, "Go on after the end of the document (default: off)");
  command.flag("--stats", arguments->stats, "Print speed and memory on standard error (default: off)");
  command.flag("--quiet", arguments->quiet, "Print no text, only what --stats and --compare say (default: off)");
  command.flag("--json", arguments->json, "Print one JSON object instead of text (default: off)");
  command.option("--compare", arguments->compare,
                 "Run this model folder on the same prompt and print both in a table (default: none)");
  command.footer("Example: photon generate -m models/stories -p \"Once upon a time\" -n 200 --stats");
  command.runs([arguments] { run_generate(*arguments); });
}

}  // namespace photon
