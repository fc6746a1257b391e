// photon bench: what the machine can do, and how near prefilling and decoding come to it.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/gnuplot.h"
#include "bench/ceilings.h"
#include "bench/figures.h"
#include "bench/paper.h"
#include "bench/plan.h"
#include "bench/report.h"
#include "bench/rounds_file.h"
#include "cli/arguments.h"
#include "cli/bench_serve.h"
#include "cli/commands.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

constexpr std::int64_t most_threads = 4096, most_streams = 1 << 16, most_repeats = 1000;

// Fills a list from "a,b,c".
template <class T>
void add_words(Command command, const std::string& name, std::vector<T>& list, T (*parse)(std::string_view),
               const std::string& help) {
  command.parsed_list(
      name,
      [&list, parse](const std::vector<std::string>& words) {
        list.clear();
        for (const std::string& word : words) list.push_back(parse(word));
      },
      help);
}

void add_numbers(Command command, const std::string& name, std::vector<std::int64_t>& list, std::int64_t least,
                 std::int64_t most, const std::string& help) {
  command.option(name, list, help).separated_by_commas().range(least, most);
}

// What prefill, decode, tpm and paper share.
struct RunArguments {
  SourceLists sources;
  std::vector<Protocol> protocols;
  std::vector<std::int64_t> threads{photon::threads()};
  BenchOptions options;
  std::string svg;
  bool json = false;

  void add_models(Command command) {
    Command models = command.group("models", "What to measure; several may be given");
    models.option("--config", sources.configs, "config.json files; the weights are random").separated_by_commas();
    models.option("-m,--model", sources.folders, "Model folders").separated_by_commas();
  }
  void add_run(Command command) {
    add_words(command, "--dtype", sources.dtypes, parse_dtype,
              "Weights: f32, bf16, int8, int4 (default: as stored; bf16 for --config)");
    add_words(command, "--kv-dtype", sources.kvs, parse_kv_dtype,
              "KV caches: f32, bf16, int8 (default: f32 for f32 weights, else bf16)");
    add_words(command, "--protocol", protocols, parse_protocol,
              "hiergen, recgen (default: hiergen; tpm and paper: both)");
    add_numbers(command, "--threads", threads, 1, most_threads, "Numbers of threads");
    command.option("--repeat", options.repeats, "Rounds through all cases; medians of these are told")
        .range(1, most_repeats);
    command.option("--seed", options.seed, "Of random weights and tokens").check(&seed_problem);
    command.flag("--profile", options.with_profile, "Also tell where the time goes (default: off)");
    command.flag("--json", json, "Print a JSON array instead of a table (default: off)");
    command.option("--svg", svg, "Folder to draw figures into, with gnuplot (default: none)");
  }
  void require_models(const Command& command) const {
    if (sources.configs.empty() && sources.folders.empty())
      throw UsageError("--config or --model of bench " + command.name() + " is required");
  }

  std::vector<BenchResult> measure(std::span<const BenchSource> measured, std::span<const BenchCase> cases,
                                   RoundsFile* kept = nullptr) {
    if (!svg.empty() && !have_gnuplot())
      throw InputError("--svg: there is no gnuplot to draw with; install gnuplot-nox, or leave out --svg");
    if (!svg.empty()) make_folder(svg);
    spdlog::info("{} {}, {} rounds; {}; seed {}", cases.size(), cases.size() == 1 ? "case" : "cases", options.repeats,
                 kernels().name, options.seed);
    return run_bench(
        measured, cases, options, [](const std::string& line) { spdlog::info("{}", line); }, kept);
  }
  static void print(const std::string& text) {
    std::cout << text << std::flush;
    if (!std::cout.good()) throw Error("standard output: cannot be written");
  }
  void run(std::span<const BenchSource> measured, std::span<const BenchCase> cases) {
    options.with_eta = ::isatty(STDERR_FILENO) == 1;
    const auto results = measure(measured, cases);
    print(json ? to_json(results, options).dump(2) + '\n' : to_table(results));
    if (!svg.empty()) draw_figures(results, svg);
  }
};

struct CrossArguments : RunArguments {
  CaseLists lists;
};

void add_cross(Command bench, BenchCase::Kind kind) {
  const bool decodes = kind == BenchCase::Kind::decode;
  auto arguments = std::make_shared<CrossArguments>();
  Command command = bench.subcommand(decodes ? "decode" : "prefill",
                                     decodes ? "Generating tokens greedily, in one stream or many"
                                             : "Encoding prompts, up to where a token could be chosen");
  CaseLists& lists = arguments->lists;
  lists.tokens = {decodes ? 64 : 2048};
  arguments->add_models(command);
  arguments->add_run(command);
  add_numbers(command, "--streams", lists.streams, 1, most_streams,
              decodes ? "Sequences in a batch" : "Prompts, encoded one after another");
  add_numbers(command, "--context", lists.contexts, 0, max_context, "Tokens that every stream has consumed before");
  add_numbers(command, "--tokens", lists.tokens, 1, max_context,
              decodes ? "Tokens that each stream generates against the clock" : "Tokens of each prompt");
  if (decodes)
    add_words(command, "--phases", lists.phases, parse_phases,
              "Whether streams complete their chunks at the same step: aligned, staggered (default: aligned)");
  command.footer(fmt::format("Example: photon bench {} --config configs/vanilla-600m.json,configs/photon-600m.json {}",
                             decodes ? "decode" : "prefill",
                             decodes ? "--protocol hiergen,recgen --context 0,2048" : "--tokens 512,2048"));
  command.runs([arguments, command, kind] {
    arguments->require_models(command);
    CaseLists& wanted = arguments->lists;
    if (!arguments->protocols.empty()) wanted.protocols = arguments->protocols;
    wanted.threads = arguments->threads;
    const auto sources = sources_of(arguments->sources);
    arguments->run(sources, cases_of(kind, sources, wanted));
  });
}

// Configs of this repository that a command measures where none are named.
std::vector<std::filesystem::path> existing(std::vector<std::filesystem::path> configs, const char* otherwise) {
  for (const auto& config : configs)
    if (!std::filesystem::exists(config))
      throw InputError(
          fmt::format("{}: not here; run this in the folder of the source, or {}", config.string(), otherwise));
  return configs;
}

// What tpm and paper share: batches as large as memory admits, sampled along a generation.
struct SamplingArguments : RunArguments {
  PaperLists lists;
  double kv_budget_gib = 4;

  void add_sampling(Command command) {
    command.option("--kv-budget", kv_budget_gib, "GiB that the KV caches of a batch may take").range(1e-6, 1e6);
    command.option("--max-streams", lists.most_streams, "Streams at most").range(1, most_streams);
    command.option("--samples", lists.samples, "Contexts at which a generation is sampled").range(1, 1024);
    command.option("--tokens", lists.tokens, "Tokens that each stream generates against the clock at each of these")
        .range(1, max_context);
  }
  std::vector<BenchCase> cases(std::span<const BenchSource> measured) {
    if (!protocols.empty()) lists.protocols = protocols;
    lists.threads = threads;
    lists.kv_budget = static_cast<std::int64_t>(kv_budget_gib * 0x1p30);
    std::vector<BenchCase> cases = paper_cases(measured, lists);
    for (const BenchCase& c : cases)
      spdlog::info("{} {} {} {}: {} {}, {} tokens of each at contexts {}", name_of(measured[c.source]),
                   to_string(measured[c.source].dtype), to_string(c.workload.protocol), c.label, c.workload.streams,
                   c.workload.streams == 1 ? "stream" : "streams", c.workload.tokens, fmt::join(c.contexts, ", "));
    return cases;
  }
};
constexpr const char* how_sampled =
    "A generation is not run from end to end: its speed is sampled at the middles of equal parts of it, after\n"
    "encoding a prompt of that length, and their times are averaged.\n";

void add_tpm(Command bench) {
  auto arguments = std::make_shared<SamplingArguments>();
  Command command =
      bench.subcommand("tpm", "Throughput per memory of any models, with as many streams as a memory budget admits");
  PaperLists& lists = arguments->lists;
  lists.workloads = {paper_prefill_heavy, paper_decode_heavy, {128, 8064}, {128, 32640}};
  arguments->add_models(command);
  arguments->add_run(command);
  add_words(command, "--workload", lists.workloads, parse_workload,
            "Prompt + generated tokens (default: 2048+128,128+2048,128+8064,128+32640)");
  arguments->add_sampling(command);
  command.footer(std::string(how_sampled) +
                 "Without --config and -m: the paper's configs/paper/{vanilla,block,photon}-600m.json, and\n"
                 "configs/photon-600m-block.json, which has bounded spans below the top.\n"
                 "Example: photon bench tpm --kv-budget 4 --json");
  command.runs([arguments] {
    SourceLists& models = arguments->sources;
    if (models.configs.empty() && models.folders.empty())
      models.configs = existing({"configs/paper/vanilla-600m.json", "configs/paper/block-600m.json",
                                 "configs/paper/photon-600m.json", "configs/photon-600m-block.json"},
                                "name models by --config");
    const auto sources = sources_of(models);
    arguments->run(sources, arguments->cases(sources));
  });
}

struct PaperArguments : SamplingArguments {
  std::string size = "600m", folder = "configs/paper", out;
};

void add_paper(Command bench) {
  auto arguments = std::make_shared<PaperArguments>();
  Command command = bench.subcommand(
      "paper", "The paper's tables of speed and memory, measured here, with its own figures beside ours");
  arguments->lists.workloads = {paper_prefill_heavy, paper_decode_heavy};
  command.option("--size", arguments->size, "Models of the paper: 600m, 900m or 1.2b").one_of(paper_sizes());
  command.option("--configs", arguments->folder, "Folder of their configs");
  arguments->add_run(command);
  arguments->add_sampling(command);
  command.option("--out", arguments->out,
                 "File that keeps every round as soon as it is measured; what is in it is not measured again\n"
                 "(same commit, machine, seed, model and workload; default: none)");
  command.footer(
      std::string(how_sampled) +
      "With --out the same command goes on after an interruption, and more rounds or another size add to the file.\n"
      "With --svg FOLDER it draws FOLDER/paper-figure3.svg.\n"
      "Example: photon bench paper --size 600m --out paper-600m.json");
  command.runs([arguments] {
    for (const std::string& model : paper_models(arguments->size))
      arguments->sources.configs.push_back(std::filesystem::path(arguments->folder) / (model + ".json"));
    arguments->sources.configs = existing(arguments->sources.configs, "name it by --configs");
    const auto sources = sources_of(arguments->sources);
    const auto cases = arguments->cases(sources);
    std::optional<RoundsFile> kept;
    if (!arguments->out.empty()) kept.emplace(arguments->out, arguments->options.seed);
    arguments->options.with_eta = true;
    const auto results = arguments->measure(sources, cases, kept ? &*kept : nullptr);
    RunArguments::print(arguments->json ? to_paper_json(results, arguments->options).dump(2) + '\n'
                                        : to_paper_table(results) + '\n' + paper_caveats());
    if (!arguments->svg.empty()) draw_paper_figure(results, arguments->svg);
  });
}

struct CeilingArguments {
  std::vector<std::int64_t> threads;
  std::int64_t repeats = 5;
  bool json = false;
};

void add_ceilings(Command bench) {
  auto arguments = std::make_shared<CeilingArguments>();
  arguments->threads = {1};
  if (photon::threads() > 1) arguments->threads.push_back(photon::threads());
  Command command = bench.subcommand("ceilings", "What the machine can do: reading and arithmetic");
  add_numbers(command, "--threads", arguments->threads, 1, most_threads, "Numbers of threads");
  command.option("--repeat", arguments->repeats, "Rounds through all ceilings").range(1, most_repeats);
  command.flag("--json", arguments->json, "Print a JSON array instead of a table (default: off)");
  command.footer("Example: photon bench ceilings --threads 1,2");
  command.runs([arguments] {
    const auto ceilings = measure_ceilings(arguments->threads, arguments->repeats);
    if (arguments->json)
      std::cout << to_json(ceilings, arguments->repeats).dump(2) << std::endl;
    else
      std::cout << to_table(ceilings) << std::flush;
    if (!std::cout.good()) throw Error("standard output: cannot be written");
  });
}

}  // namespace

void add_bench(Command app) {
  Command bench = app.subcommand("bench", "Measure speed and memory against the machine's ceilings");
  bench.needs_subcommand();
  add_ceilings(bench);
  add_cross(bench, BenchCase::Kind::prefill);
  add_cross(bench, BenchCase::Kind::decode);
  add_tpm(bench);
  add_paper(bench);
  add_bench_serve(bench);
}

}  // namespace photon
