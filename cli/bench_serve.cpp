#include "cli/bench_serve.h"

#include <spdlog/spdlog.h>

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

void add_lengths(Command command, const std::string& name, LengthRange& range, const std::string& help) {
  command
      .parsed(
          name, [&range](const std::string& text) { range = parse_length_range(text); }, help)
      .shown_default(to_string(range));
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

void add_bench_serve(Command bench) {
  auto arguments = std::make_shared<LoadArguments>();
  LoadOptions& options = arguments->options;
  constexpr std::int64_t many = std::int64_t{1} << 30;
  constexpr double long_time = 1e7;
  Command command = bench.subcommand("serve", "A running server under a load that does not wait for its answers");
  command.option("--url", options.url, "Server: http://HOST:PORT");
  command.option("--api-key", options.api_key, "Key that the server wants (default: PHOTON_API_KEY, else none)");
  command.option("--rate", options.rate, "Requests per second on average; arrivals are Poisson's").range(1e-6, 1e6);
  Argument requests = command.option("--requests", options.requests, "Requests in all").range(1, many);
  command.option("--duration", options.duration_s, "Seconds for which requests arrive, instead of --requests")
      .range(1e-3, long_time)
      .excludes(requests);
  command.option("--warmup", options.warmup, "Requests before, sent at once, that do not count").range(0, many);
  add_lengths(command, "--prompt-tokens", options.prompt_tokens,
              "Random tokens of each prompt: 512, or any of 128,1024");
  add_lengths(command, "--output-tokens", options.output_tokens, "Tokens of each answer, likewise");
  command.option("--share-prefix", options.share_prefix, "Share of each prompt, from its beginning, that all have")
      .range(0.0, 1.0);
  command
      .parsed(
          "--protocol", [&options](const std::string& word) { options.protocol = parse_protocol(word); },
          "hiergen or recgen")
      .shown_default("hiergen");
  command.option("--n", options.n, "Continuations of each prompt").range(1, 65536);
  command.option("--slo-ttft-ms", options.slo_ttft_ms, "Objective: the first token within so many milliseconds")
      .range(0.0, 1e3 * long_time);
  command.option("--slo-itl-ms", options.slo_itl_ms, "Objective: so much between an answer's tokens, on average")
      .range(0.0, 1e3 * long_time);
  command.option("--timeout", options.timeout_s, "Seconds that a request may take").range(1e-3, long_time);
  command.option("--seed", options.seed, "Of arrivals, lengths and tokens").check(&seed_problem);
  command.flag("--json", arguments->json, "Print a JSON object instead of a table (default: off)");
  command.footer(
      "Latency counts from when a request was planned to be sent. The same seed asks the same again, which a server "
      "may\n"
      "still have in its prefix cache: the table tells how much came from there.\n"
      "Example: photon bench serve --rate 4 --requests 200 --prompt-tokens 128,1024 --output-tokens 128");
  command.runs([arguments] { run(*arguments); });
}

}  // namespace photon
