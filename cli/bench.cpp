// photon bench: what the machine can do, and how near prefilling and decoding come to it.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/gnuplot.h"
#include "bench/ceilings.h"
#include "bench/figures.h"
#include "bench/plan.h"
#include "bench/report.h"
#include "cli/arguments.h"
#include "cli/bench_serve.h"
#include "cli/commands.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t most_threads = 4096, most_streams = 1 << 16, most_repeats = 1000;

// Fills a list from "a,b,c", each word once.
template <class T>
CLI::Option* add_words(CLI::App& command, const std::string& name, std::vector<T>& list, T (*parse)(std::string_view),
                       const std::string& help) {
  return command
      .add_option_function<std::vector<std::string>>(
          name,
          [&list, parse, name](const std::vector<std::string>& words) {
            list.clear();
            try {
              for (const std::string& word : words) list.push_back(parse(word));
            } catch (const InputError& e) {
              throw CLI::ValidationError(name, e.what());
            }
          },
          help)
      ->delimiter(',');
}

CLI::Option* add_numbers(CLI::App& command, const std::string& name, std::vector<std::int64_t>& list,
                         std::int64_t least, std::int64_t most, const std::string& help) {
  return command.add_option(name, list, help)->delimiter(',')->check(CLI::Range(least, most))->capture_default_str();
}

// What prefill, decode and tpm share.
struct RunArguments {
  SourceLists sources;
  std::vector<Protocol> protocols;
  std::vector<std::int64_t> threads{photon::threads()};
  BenchOptions options;
  std::string svg;
  bool json = false;

  void add_to(CLI::App& command) {
    auto* models = command.add_option_group("models", "What to measure; several may be given");
    models->add_option("--config", sources.configs, "config.json files; the weights are random")->delimiter(',');
    models->add_option("-m,--model", sources.folders, "Model folders")->delimiter(',');
    add_words(command, "--dtype", sources.dtypes, parse_dtype,
              "Weights: f32, bf16, int8, int4 (default: as stored; bf16 for --config)");
    add_words(command, "--kv-dtype", sources.kvs, parse_kv_dtype,
              "KV caches: f32, bf16, int8 (default: f32 for f32 weights, else bf16)");
    add_words(command, "--protocol", protocols, parse_protocol, "hiergen, recgen (default: hiergen; tpm: both)");
    add_numbers(command, "--threads", threads, 1, most_threads, "Numbers of threads");
    command.add_option("--repeat", options.repeats, "Rounds through all cases; medians of these are told")
        ->check(CLI::Range(std::int64_t{1}, most_repeats))
        ->capture_default_str();
    command.add_option("--seed", options.seed, "Of random weights and tokens")
        ->check(&seed_problem)
        ->capture_default_str();
    command.add_flag("--profile", options.with_profile, "Also tell where the time goes (default: off)");
    command.add_flag("--json", json, "Print a JSON array instead of a table (default: off)");
    command.add_option("--svg", svg, "Folder to draw figures into, with gnuplot (default: none)");
  }
  void require_models(const CLI::App& command) const {
    if (sources.configs.empty() && sources.folders.empty())
      throw CLI::RequiredError("--config or --model of bench " + command.get_name());
  }

  void run(std::span<const BenchSource> measured, std::span<const BenchCase> cases) {
    if (!svg.empty() && !have_gnuplot())
      throw InputError("--svg: there is no gnuplot to draw with; install gnuplot-nox, or leave out --svg");
    if (!svg.empty()) make_folder(svg);
    options.with_eta = ::isatty(STDERR_FILENO) == 1;
    spdlog::info("{} {}, {} rounds; {}; seed {}", cases.size(), cases.size() == 1 ? "case" : "cases", options.repeats,
                 kernels().name, options.seed);
    const auto results = run_bench(measured, cases, options, [](const std::string& line) { spdlog::info("{}", line); });
    if (json)
      std::cout << to_json(results, options).dump(2) << std::endl;
    else
      std::cout << to_table(results) << std::flush;
    if (!std::cout.good()) throw Error("standard output: cannot be written");
    if (!svg.empty()) draw_figures(results, svg);
  }
};

struct CrossArguments : RunArguments {
  CaseLists lists;
};

void add_cross(CLI::App& bench, BenchCase::Kind kind) {
  const bool decodes = kind == BenchCase::Kind::decode;
  auto arguments = std::make_shared<CrossArguments>();
  CLI::App* command = bench.add_subcommand(decodes ? "decode" : "prefill",
                                           decodes ? "Generating tokens greedily, in one stream or many"
                                                   : "Encoding prompts, up to where a token could be chosen");
  CaseLists& lists = arguments->lists;
  lists.tokens = {decodes ? 64 : 2048};
  arguments->add_to(*command);
  add_numbers(*command, "--streams", lists.streams, 1, most_streams,
              decodes ? "Sequences in a batch" : "Prompts, encoded one after another");
  add_numbers(*command, "--context", lists.contexts, 0, max_context, "Tokens that every stream has consumed before");
  add_numbers(*command, "--tokens", lists.tokens, 1, max_context,
              decodes ? "Tokens that each stream generates against the clock" : "Tokens of each prompt");
  if (decodes)
    add_words(*command, "--phases", lists.phases, parse_phases,
              "Whether streams complete their chunks at the same step: aligned, staggered (default: aligned)");
  command->footer(fmt::format("Example: photon bench {} --config configs/vanilla-600m.json,configs/photon-600m.json {}",
                              decodes ? "decode" : "prefill",
                              decodes ? "--protocol hiergen,recgen --context 0,2048" : "--tokens 512,2048"));
  command->callback([arguments, command, kind] {
    arguments->require_models(*command);
    CaseLists& wanted = arguments->lists;
    if (!arguments->protocols.empty()) wanted.protocols = arguments->protocols;
    wanted.threads = arguments->threads;
    const auto sources = sources_of(arguments->sources);
    arguments->run(sources, cases_of(kind, sources, wanted));
  });
}

std::vector<std::filesystem::path> paper_configs() {
  std::vector<std::filesystem::path> configs;
  for (const char* name : {"vanilla-600m", "block-600m", "photon-600m", "photon-600m-block"}) {
    configs.push_back(fmt::format("configs/{}.json", name));
    if (!std::filesystem::exists(configs.back()))
      throw InputError(
          fmt::format("{}: not here; run bench tpm in the folder of the source, or name models by --config",
                      configs.back().string()));
  }
  return configs;
}

struct PaperArguments : RunArguments {
  PaperLists lists;
  double kv_budget_gib = 4;
};

void add_tpm(CLI::App& bench) {
  auto arguments = std::make_shared<PaperArguments>();
  CLI::App* command = bench.add_subcommand(
      "tpm", "The paper's table: throughput per memory with as many streams as a memory budget admits");
  PaperLists& lists = arguments->lists;
  for (const char* workload : {"2048+128", "128+2048", "128+8064", "128+32640"})
    lists.workloads.push_back(parse_workload(workload));
  arguments->add_to(*command);
  add_words(*command, "--workload", lists.workloads, parse_workload,
            "Prompt + generated tokens (default: 2048+128,128+2048,128+8064,128+32640)");
  command->add_option("--kv-budget", arguments->kv_budget_gib, "GiB that the KV caches of a batch may take")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str();
  command->add_option("--max-streams", lists.most_streams, "Streams at most")
      ->check(CLI::Range(std::int64_t{1}, most_streams))
      ->capture_default_str();
  command->add_option("--samples", lists.samples, "Contexts at which a generation is sampled")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}))
      ->capture_default_str();
  command->add_option("--tokens", lists.tokens, "Tokens that each stream generates against the clock at each of these")
      ->check(CLI::Range(std::int64_t{1}, max_context))
      ->capture_default_str();
  command->footer(
      "A generation is not run from end to end: its speed is sampled at the middles of equal parts of it, after\n"
      "encoding a prompt of that length, and their times are averaged.\n"
      "Without --config and -m: configs/{vanilla,block,photon}-600m.json and configs/photon-600m-block.json.\n"
      "Example: photon bench tpm --kv-budget 4 --json");
  command->callback([arguments] {
    PaperLists& wanted = arguments->lists;
    SourceLists& models = arguments->sources;
    if (models.configs.empty() && models.folders.empty()) models.configs = paper_configs();
    if (!arguments->protocols.empty()) wanted.protocols = arguments->protocols;
    wanted.threads = arguments->threads;
    wanted.kv_budget = static_cast<std::int64_t>(arguments->kv_budget_gib * 0x1p30);
    const auto sources = sources_of(models);
    const auto cases = paper_cases(sources, wanted);
    spdlog::info("sampling each generation at {} contexts, {} tokens at each", wanted.samples, wanted.tokens);
    arguments->run(sources, cases);
  });
}

struct CeilingArguments {
  std::vector<std::int64_t> threads;
  std::int64_t repeats = 5;
  bool json = false;
};

void add_ceilings(CLI::App& bench) {
  auto arguments = std::make_shared<CeilingArguments>();
  arguments->threads = {1};
  if (photon::threads() > 1) arguments->threads.push_back(photon::threads());
  CLI::App* command = bench.add_subcommand("ceilings", "What the machine can do: reading and arithmetic");
  add_numbers(*command, "--threads", arguments->threads, 1, most_threads, "Numbers of threads");
  command->add_option("--repeat", arguments->repeats, "Rounds through all ceilings")
      ->check(CLI::Range(std::int64_t{1}, most_repeats))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print a JSON array instead of a table (default: off)");
  command->footer("Example: photon bench ceilings --threads 1,2");
  command->callback([arguments] {
    const auto ceilings = measure_ceilings(arguments->threads, arguments->repeats);
    if (arguments->json)
      std::cout << to_json(ceilings, arguments->repeats).dump(2) << std::endl;
    else
      std::cout << to_table(ceilings) << std::flush;
    if (!std::cout.good()) throw Error("standard output: cannot be written");
  });
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed and memory against the machine's ceilings");
  bench->require_subcommand(1);
  add_ceilings(*bench);
  add_cross(*bench, BenchCase::Kind::prefill);
  add_cross(*bench, BenchCase::Kind::decode);
  add_tpm(*bench);
  add_bench_serve(*bench);
}

}  // namespace photon
