#include "cli/bench_serve.h"

#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "base/error.h"
#include "bench/serve_plan.h"
#include "bench/serve_report.h"
#include "bench/serve_run.h"
#include "cli/arguments.h"

namespace photon {
namespace {

struct LoadArguments {
  LoadOptions options;
  bool json = false;
};

CLI::Option* add_lengths(CLI::App& command, const std::string& name, LengthRange& range, const std::string& help) {
  return command
      .add_option_function<std::string>(
          name,
          [&range, name](const std::string& text) {
            try {
              range = parse_length_range(text);
            } catch (const InputError& e) {
              throw CLI::ValidationError(name, e.what());
            }
          },
          help)
      ->default_str(to_string(range));
}

void run(const LoadArguments& arguments) {
  LoadOptions options = arguments.options;
  if (const char* key = std::getenv("PHOTON_API_KEY"); key != nullptr && options.api_key.empty()) options.api_key = key;
  const LoadResult result = run_load(options, [](const std::string& line) { spdlog::info("{}", line); });
  const LoadSummary summary = summary_of(result, options);
  if (arguments.json)
    std::cout << to_json(result, summary, options).dump(2) << std::endl;
  else
    std::cout << to_table(result, summary, options) << std::flush;
  if (!std::cout.good()) throw Error("standard output: cannot be written");
  if (summary.answered == 0)
    throw Error(options.url + ": not one request was answered; the first ended with " + result.requests.front().error +
                (result.requests.front().message.empty() ? "" : ": ") + result.requests.front().message);
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  auto arguments = std::make_shared<LoadArguments>();
  LoadOptions& options = arguments->options;
  constexpr std::int64_t many = std::int64_t{1} << 30;
  constexpr double long_time = 1e7;
  CLI::App* command = bench.add_subcommand("serve", "A running server under a load that does not wait for its answers");
  command->add_option("--url", options.url, "Server: http://HOST:PORT")->capture_default_str();
  command->add_option("--api-key", options.api_key, "Key that the server wants (default: PHOTON_API_KEY, else none)");
  command->add_option("--rate", options.rate, "Requests per second on average; arrivals are Poisson's")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str();
  auto* requests = command->add_option("--requests", options.requests, "Requests in all")
                       ->check(CLI::Range(std::int64_t{1}, many))
                       ->capture_default_str();
  command->add_option("--duration", options.duration_s, "Seconds for which requests arrive, instead of --requests")
      ->check(CLI::Range(1e-3, long_time))
      ->excludes(requests);
  command->add_option("--warmup", options.warmup, "Requests before, sent at once, that do not count")
      ->check(CLI::Range(std::int64_t{0}, many))
      ->capture_default_str();
  add_lengths(*command, "--prompt-tokens", options.prompt_tokens,
              "Random tokens of each prompt: 512, or any of 128,1024");
  add_lengths(*command, "--output-tokens", options.output_tokens, "Tokens of each answer, likewise");
  command->add_option("--share-prefix", options.share_prefix, "Share of each prompt, from its beginning, that all have")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--protocol",
          [&options](const std::string& word) {
            try {
              options.protocol = parse_protocol(word);
            } catch (const InputError& e) {
              throw CLI::ValidationError("--protocol", e.what());
            }
          },
          "hiergen or recgen")
      ->default_str("hiergen");
  command->add_option("--n", options.n, "Continuations of each prompt")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{65536}))
      ->capture_default_str();
  command->add_option("--slo-ttft-ms", options.slo_ttft_ms, "Objective: the first token within so many milliseconds")
      ->check(CLI::Range(0.0, 1e3 * long_time));
  command->add_option("--slo-itl-ms", options.slo_itl_ms, "Objective: so much between an answer's tokens, on average")
      ->check(CLI::Range(0.0, 1e3 * long_time));
  command->add_option("--timeout", options.timeout_s, "Seconds that a request may take")
      ->check(CLI::Range(1e-3, long_time))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of arrivals, lengths and tokens")
      ->check(&seed_problem)
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print a JSON object instead of a table (default: off)");
  command->footer(
      "Latency counts from when a request was planned to be sent. The same seed asks the same again, which a server "
      "may\n"
      "still have in its prefix cache: the table tells how much came from there.\n"
      "Example: photon bench serve --rate 4 --requests 200 --prompt-tokens 128,1024 --output-tokens 128");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace photon
