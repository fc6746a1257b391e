// photon selfcheck: whether a model runs as it should on this machine, in one screen.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "eval/selfcheck.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t fewest_tokens = 32, most_tokens = 1 << 16;

struct SelfcheckArguments {
  EngineArguments engine;
  std::string file;
  std::int64_t n_tokens = 256;
  bool json = false;
};

// What the model is shown: the beginning of the text, or one that it draws from its own distribution.
std::vector<std::int32_t> tokens_of(const SelfcheckArguments& arguments, Engine& engine) {
  std::vector<std::int32_t> tokens{static_cast<std::int32_t>(engine.spec().bos_token_id)};
  if (arguments.file.empty()) {
    const auto own = engine
                         .generate({.prompt = tokens,
                                    .n_tokens = arguments.n_tokens - 1,
                                    .sampler = {.temperature = 1, .seed = 1},
                                    .ignore_eos = true})
                         .tokens();
    tokens.insert(tokens.end(), own.begin(), own.end());
    return tokens;
  }
  TextArguments input;
  input.file = arguments.file;
  tokens.clear();
  for (const auto& document : input.read(engine.model()).pieces)
    tokens.insert(tokens.end(), document.begin(), document.end());
  if (std::ssize(tokens) < fewest_tokens)
    throw InputError(
        fmt::format("{}: has {} tokens, at least {} are needed", arguments.file, tokens.size(), fewest_tokens));
  tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(arguments.n_tokens)));
  return tokens;
}

// Decoding in float32, and the model rounded in each way beside it.
void check_rounded(const SelfcheckArguments& arguments, const Model& as_run, std::span<const std::int32_t> tokens,
                   const std::function<void(Check)>& report) {
  struct Rounding {
    std::string what;
    Precision precision;
    double tolerance;  // nats: well above what a sound model loses, below what a broken kernel costs
  };
  using W = DType;
  using K = DType;
  const std::vector<Rounding> roundings{{"bf16 weights", {W::bf16, K::f32}, 1e-3},
                                        {"int8 weights", {W::int8, K::f32}, 1e-2},
                                        {"int4 weights", {W::int4, K::f32}, 1},
                                        {"bf16 KV", {W::f32, K::bf16}, 1e-3},
                                        {"int8 KV", {W::f32, K::int8}, 1e-2}};
  const auto not_measured = [&](const std::string& name, const Error& e) {
    report({.name = name, .value = std::nan(""), .detail = fmt::format("not measured: {}", e.what())});
  };
  std::optional<Engine> f32;
  try {
    f32.emplace(arguments.engine.model, Precision{W::f32, K::f32});
  } catch (const InputError& e) {
    return not_measured("float32", e);
  }
  if (as_run.dtype != W::f32 || as_run.kv != K::f32) report(check_protocols(*f32, tokens).front());
  for (const Rounding& r : roundings) {
    try {
      Engine rounded(arguments.engine.model, r.precision);
      report(check_rounding(*f32, rounded, r.what, r.tolerance, tokens));
    } catch (const InputError& e) {
      not_measured("KL of " + r.what, e);
    }
  }
}

void print(const Check& check) {
  fmt::print("{}  {:<36}{:>10} {:<10} {}{}\n", check.verdict(), check.name,
             std::isnan(check.value) ? "-" : fmt::format("{:.3g}", check.value),
             check.tolerance ? fmt::format("(<= {:g})", *check.tolerance) : "", check.detail,
             check.vacuous ? "; says nothing here: it could not have gone wrong" : "");
  std::fflush(stdout);
}

ordered_json to_json(const Check& check) {
  return {{"name", check.name},
          {"verdict", check.verdict()},
          {"value", check.value},
          {"tolerance", check.tolerance ? ordered_json(*check.tolerance) : ordered_json()},
          {"detail", check.detail}};
}

void run_selfcheck(const SelfcheckArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  Engine engine = arguments.engine.open();
  const Model& model = engine.model();
  const std::vector<std::int32_t> tokens = tokens_of(arguments, engine);
  if (!arguments.json)
    fmt::print("{}: {} weights, {} KV, {}, {} thread{}, {} tokens {}\n\n", arguments.engine.model,
               to_string(model.dtype), to_string(model.kv), kernels().name, threads(), threads() == 1 ? "" : "s",
               tokens.size(), arguments.file.empty() ? "that it drew itself" : "of the text");

  ordered_json json = ordered_json::array();
  int n_failed = 0, n_passed = 0;
  const auto report = [&](const Check& check) {
    n_failed += check.failed(), n_passed += !check.failed() && check.tolerance;
    arguments.json ? json.push_back(to_json(check)) : print(check);
  };
  for (const Check& check : check_protocols(engine, tokens)) report(check);
  report(check_generation(engine, tokens));
  report(check_causality(engine, tokens));
  report(check_batches(engine, tokens));
  report(check_kv_bytes(engine, Protocol::hiergen, tokens));
  if (model.n_levels() >= 1) report(check_kv_bytes(engine, Protocol::recgen, tokens));
  if (model.n_levels() >= 2) report(check_recgen_state(engine, tokens));
  check_rounded(arguments, model, tokens, report);

  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (arguments.json)
    std::cout << ordered_json{{"model", arguments.engine.model},
                              {"dtype", to_string(model.dtype)},
                              {"kv_dtype", to_string(model.kv)},
                              {"isa", kernels().name},
                              {"threads", threads()},
                              {"tokens", tokens.size()},
                              {"passed", n_failed == 0},
                              {"seconds", seconds.count()},
                              {"checks", json}}
                     .dump()
              << std::endl;
  else
    fmt::print("\n{} passed, {} failed in {:.1f} s\n", n_passed, n_failed, seconds.count());
  if (n_failed > 0)
    throw Error(fmt::format("{}: {} check{} failed", arguments.engine.model, n_failed, n_failed == 1 ? "" : "s"));
}

}  // namespace

void add_selfcheck(Command app) {
  auto arguments = std::make_shared<SelfcheckArguments>();
  Command command = app.subcommand("selfcheck", "Whether a model runs as it should on this machine");
  arguments->engine.add_to(command);
  command.option("--file", arguments->file,
                 "UTF-8 text to show the model (default: one that it draws itself, always the same)");
  command.option("-n,--n-tokens", arguments->n_tokens, "Tokens of it; the time grows with them")
      .range(fewest_tokens, most_tokens);
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  command.footer(
      "Example: photon selfcheck -m models/photon-stories\n"
      "Each line is a number and, in brackets, the largest that passes; `info` lines are not judged. The exit code is "
      "1 "
      "if a check fails.");
  command.runs([arguments] { run_selfcheck(*arguments); });
}

}  // namespace photon
