// photon info: what a model is, and what it costs beside the vanilla model of equal parameters.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "spec/accounting.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct Case {  // one column of the comparison
  const Spec& spec;
  Protocol protocol = Protocol::hiergen;
  std::int64_t context = 0;
  DType kv = DType::bf16;
};

enum class Unit { parameters, share, flops, bytes };

struct Figure {  // one row of the comparison: the same for people and machines
  const char* key;
  const char* label;
  Unit unit;
  bool has_ratio;  // vanilla / model says something
  double (*value)(const Case&);
};

double head_share(const Case& c) {
  const auto head = static_cast<double>(c.spec.vocab_size * c.spec.head_width());
  return 2 * head / decode_flops(c.spec, c.protocol, c.context).matmul;
}

constexpr Figure figures[] = {
    {"parameters", "parameters", Unit::parameters, true,
     [](const Case& c) { return static_cast<double>(count_parameters(c.spec).total); }},
    {"embedding_parameters", "  of these in the embedding", Unit::parameters, false,
     [](const Case& c) { return static_cast<double>(count_parameters(c.spec).embedding); }},
    {"head_parameters", "  of these in the head", Unit::parameters, false,
     [](const Case& c) { return static_cast<double>(count_parameters(c.spec).head); }},
    {"head_share", "head's share of decode matmul", Unit::share, false, head_share},
    {"prefill_matmul_flops", "prefill FLOPs/token, matmul", Unit::flops, true,
     [](const Case& c) { return prefill_flops(c.spec, c.context).matmul; }},
    {"prefill_attention_flops", "  attention, mean to context", Unit::flops, true,
     [](const Case& c) { return prefill_flops(c.spec, c.context).attention; }},
    {"decode_matmul_flops", "decode FLOPs/token, matmul", Unit::flops, true,
     [](const Case& c) { return decode_flops(c.spec, c.protocol, c.context).matmul; }},
    {"decode_attention_flops", "  attention, at context", Unit::flops, true,
     [](const Case& c) { return decode_flops(c.spec, c.protocol, c.context).attention; }},
    {"training_matmul_flops", "training FLOPs/token, matmul", Unit::flops, true,
     [](const Case& c) { return forward_and_backward * training_flops(c.spec, c.context).matmul; }},
    {"training_attention_flops", "  attention, mean to context", Unit::flops, true,
     [](const Case& c) { return forward_and_backward * training_flops(c.spec, c.context).attention; }},
    {"weights_read_per_token", "weights read/token, one sequence", Unit::parameters, true,
     [](const Case& c) { return weights_read_per_token(c.spec, c.protocol); }},
    {"kv_bytes_per_token", "KV cache, growing per token", Unit::bytes, true,
     [](const Case& c) { return kv_bytes_per_token(c.spec, c.protocol, c.kv); }},
    {"kv_bytes_constant", "  constant per sequence", Unit::bytes, false,
     [](const Case& c) { return static_cast<double>(kv_bytes_constant(c.spec, c.protocol, c.kv)); }},
    {"kv_bytes_allocated", "  allocated at context", Unit::bytes, true,
     [](const Case& c) { return static_cast<double>(kv_bytes_allocated(c.spec, c.protocol, c.context, c.kv)); }},
    {"kv_bytes_read_growing", "KV read/token, growing caches", Unit::bytes, true,
     [](const Case& c) { return kv_bytes_read(c.spec, c.protocol, c.context, c.kv).growing; }},
    {"kv_bytes_read", "  with the bounded caches", Unit::bytes, true,
     [](const Case& c) { return kv_bytes_read(c.spec, c.protocol, c.context, c.kv).total(); }},
};

// 1234567 -> "1,234,567".
std::string grouped(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

// Four significant digits and a decimal prefix: 218103808 -> "218.1 M".
std::string scaled(double value) {
  constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t i = 0;
  for (; std::abs(value) >= 999.95 && i + 1 < std::size(prefixes); ++i) value /= 1000;
  const int decimals = i == 0 && value == std::floor(value) ? 0 : value < 9.9995 ? 3 : value < 99.995 ? 2 : 1;
  return fmt::format("{:.{}f} {}", value, decimals, prefixes[i]);
}

std::string text_of(double value, Unit unit) {
  switch (unit) {
    case Unit::parameters:
      return grouped(value);
    case Unit::share:
      return fmt::format("{:.1f} %", 100 * value);
    case Unit::flops:
      return scaled(value);
    case Unit::bytes:
      return value < 1e6 ? grouped(value) + " B" : scaled(value) + "B";
  }
  return {};
}

std::string ratio_text(double vanilla, double model) {
  if (!(vanilla > 0) || !(model > 0)) return {};
  const double ratio = vanilla / model;
  return fmt::format("{:.{}f}x", ratio, ratio < 9.995 ? 2 : ratio < 999.95 ? 1 : 0);
}

using Table = std::vector<std::vector<std::string>>;

// Columns padded to their widest cell; the first `left` columns to the left, the others to the right.
void print(const Table& table, std::size_t left) {
  std::vector<std::size_t> widths;
  for (const auto& row : table) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : table) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i < left ? fmt::format("  {:<{}}", row[i], widths[i]) : fmt::format("  {:>{}}", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    std::cout << line << '\n';
  }
}

std::string family(const Spec& spec) {
  std::string name = spec.n_levels() == 1 ? "Block Transformer" : "PHOTON";
  if (spec.trunk)
    name = spec.trunk->span.kind == Span::Kind::global ? "vanilla Transformer" : "sliding-window Transformer";
  for (const MemorySpec& memory : spec.token_stack().memory)
    name += fmt::format("{} memory of {}", &memory == &spec.token_stack().memory.front() ? " with" : " and",
                        to_string(memory.kind));
  return name;
}

void print_spec(const Spec& spec, const std::string& name) {
  const Parameters parameters = count_parameters(spec);
  const auto elements_of = [&](const std::string& place) {
    const auto part = std::find_if(parameters.parts.begin(), parameters.parts.end(),
                                   [&](const auto& candidate) { return candidate.first == place; });
    return part == parameters.parts.end() ? 0 : part->second;
  };
  std::cout << fmt::format("{}: {}", name, family(spec));
  if (!spec.trunk) std::cout << fmt::format(", {} level{}", spec.n_levels(), spec.n_levels() == 1 ? "" : "s");
  std::cout << fmt::format(", {} parameters\n\n", grouped(static_cast<double>(parameters.total)));
  std::cout << fmt::format(
      "  vocab_size {}, d_embed {}, {} head, norm_eps {}, bos_token_id {}, eos_token_id {}{}{}\n\n", spec.vocab_size,
      spec.d_embed, spec.tie_embeddings ? "tied" : "untied", spec.norm_eps, spec.bos_token_id, spec.eos_token_id,
      spec.decoder_embedding ? ", decoder_embedding" : "", spec.learned_start ? "" : ", start latent zero");
  if (!spec.trunk) {
    Table levels{{"", "chunk_size", "tokens/unit", "converter_len", "chunker", "parameters"}};
    const auto with = [](std::string text, bool norm, bool bias) {
      return text + (norm ? ", norm" : "") + (bias ? ", bias" : "");
    };
    for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
      const LevelSpec& level = spec.level(l);
      const std::string place = fmt::format("level {}", l);
      std::int64_t elements = 0;
      for (const char* part : {" chunker", " converter", " content_proj"}) elements += elements_of(place + part);
      levels.push_back(
          {place, std::to_string(level.chunk_size), std::to_string(spec.chunk_tokens(l)),
           with(std::to_string(level.converter_len), false, level.converter_bias),
           with(level.chunker == Chunker::concat ? "concat" : "linear", level.chunker_norm, level.chunker_bias),
           grouped(static_cast<double>(elements))});
    }
    print(levels, 1);
    std::cout << '\n';
  }

  Table stacks{
      {"", "span", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "rope_theta", "parameters"}};
  const auto add_stack = [&](const std::string& place, const StackSpec& s) {
    stacks.push_back({place, to_string(s.span), std::to_string(s.d_model), std::to_string(s.n_layers),
                      std::to_string(s.n_heads), std::to_string(s.n_kv_heads), std::to_string(s.head_dim),
                      std::to_string(s.d_ff), fmt::format("{:g}", s.rope_theta),
                      grouped(static_cast<double>(elements_of(place)))});
  };
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l)
    add_stack(fmt::format("level {} encoder", l), spec.level(l).encoder);
  for (std::int64_t l = spec.n_levels(); l >= 1; --l)
    add_stack(fmt::format("level {} decoder", l), spec.level(l).decoder);
  if (spec.trunk) add_stack("trunk", *spec.trunk);
  print(stacks, 2);
  if (const auto& global = spec.token_stack().global_layers; !global.empty())
    std::cout << fmt::format("  block{} {} of the trunk: span global\n", global.size() == 1 ? "" : "s",
                             fmt::join(global, ", "));
  for (const MemorySpec& m : spec.token_stack().memory)
    std::cout << fmt::format("  memory of {} in block{} {}: {}n_kv_heads {}{}{}\n", to_string(m.kind),
                             m.layers.size() == 1 ? "" : "s", fmt::join(m.layers, ", "),
                             m.context > 0 ? fmt::format("context {}, ", m.context) : "", m.n_kv_heads,
                             m.recency ? ", recency" : "", m.rope ? ", rope" : "");
  std::cout << '\n';
}

// Parameters part by part, in the order in which the paper lists them: bottom-up, then top-down.
void print_parameters(const Spec& spec) {
  const Parameters parameters = count_parameters(spec);
  Table table{{"part", "parameters", "share"}};
  const auto add = [&](const std::string& part, std::int64_t n) {
    table.push_back({part, grouped(static_cast<double>(n)),
                     text_of(static_cast<double>(n) / static_cast<double>(parameters.total), Unit::share)});
  };
  add("embedder", parameters.embedding);
  for (const auto& [part, n] : parameters.parts) add(part == "decoder_embed" ? "decoder embedder" : part, n);
  if (parameters.head > 0) add("head", parameters.head);
  add("total", parameters.total);
  print(table, 1);
  std::cout << '\n';
}

// The protocols that differ for this model.
std::vector<Protocol> protocols(const Spec& spec) {
  if (spec.n_levels() >= 2) return {Protocol::hiergen, Protocol::recgen};
  return {Protocol::hiergen};
}

void print_costs(const Case& model, const Case& vanilla, const std::string& dtype) {
  std::vector<std::string> head{fmt::format("context {}, {}", model.context, dtype),
                                fmt::format("vanilla, {} layers", vanilla.spec.trunk->n_layers)};
  std::vector<Case> columns;
  if (model.spec != vanilla.spec)
    for (const Protocol protocol : protocols(model.spec)) {
      columns.push_back({model.spec, protocol, model.context, model.kv});
      head.insert(head.end(), {std::string(to_string(protocol)), ""});
    }
  Table table{head};
  Unit previous = Unit::parameters;
  for (const Figure& figure : figures) {
    if ((figure.unit == Unit::flops) != (previous == Unit::flops)) table.emplace_back();  // a gap around the FLOPs
    previous = figure.unit;
    const double of_vanilla = figure.value(vanilla);
    std::vector<std::string> row{figure.label, text_of(of_vanilla, figure.unit)};
    for (const Case& column : columns) {
      const double value = figure.value(column);
      row.push_back(text_of(value, figure.unit));
      row.push_back(figure.has_ratio ? ratio_text(of_vanilla, value) : std::string());
    }
    table.push_back(row);
  }
  print(table, 1);
  if (model.spec == vanilla.spec) return;
  const double difference = figures[0].value(model) / figures[0].value(vanilla) - 1;
  std::cout << fmt::format(
      "\n  x: how many times less than the vanilla model of nearest size, whose blocks are {}\n     (this model has "
      "{:.2f} % {} parameters).  Training is forward and backward.\n",
      model.spec.trunk ? "this trunk's, with a global span" : "the level 1 decoder's", std::abs(100 * difference),
      difference < 0 ? "fewer" : "more");
  if (model.spec.n_levels() == 1) std::cout << "     With one level recgen is hiergen.\n";
}

ordered_json number(double value) {
  if (std::abs(value) < 9e15 && value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

ordered_json costs_json(const Case& c) {
  ordered_json costs;
  for (const Figure& figure : figures) costs[figure.key] = number(figure.value(c));
  return costs;
}

ordered_json report(const Case& model, const Case& vanilla, const std::string& name, const std::string& dtype) {
  ordered_json parts;
  const Parameters parameters = count_parameters(model.spec);
  parts["embedding"] = parameters.embedding;
  for (const auto& [part, n] : parameters.parts) parts[part] = n;
  parts["head"] = parameters.head;

  ordered_json result{{"model", name},
                      {"family", family(model.spec)},
                      {"context", model.context},
                      {"dtype", dtype},
                      {"parameters", parameters.total},
                      {"parameters_by_part", parts},
                      {"config", ordered_json::parse(to_json(model.spec))}};
  const ordered_json of_vanilla = costs_json(vanilla);
  for (const Protocol protocol : protocols(model.spec)) {
    ordered_json costs = costs_json({model.spec, protocol, model.context, model.kv}), times_less;
    for (const Figure& figure : figures) {
      const double ours = costs[figure.key], theirs = of_vanilla[figure.key];
      if (figure.has_ratio && ours > 0) times_less[figure.key] = theirs / ours;
    }
    costs["times_less_than_vanilla"] = times_less;
    result["protocols"][std::string(to_string(protocol))] = costs;
  }
  result["vanilla"] = of_vanilla;
  result["vanilla"]["config"] = ordered_json::parse(to_json(vanilla.spec));
  return result;
}

}  // namespace

void add_info(Command app) {
  struct Options {
    std::string path, dtype = "bf16";
    std::int64_t context = 2048;
    bool json = false;
  };
  Command command = app.subcommand("info", "Show what a model is and what it costs beside a vanilla model");
  auto options = std::make_shared<Options>();
  command.option("model", options->path, "model folder or config.json").required();
  command.option("--context", options->context, "tokens of context at which costs are given").range(1, max_context);
  command.option("--dtype", options->dtype, "type of the KV cache: f32, bf16 or int8").one_of({"f32", "bf16", "int8"});
  command.flag("--json", options->json, "print JSON");
  command.footer("Example: photon info configs/photon-600m.json --context 8192");
  command.runs([options] {
    const auto path = std::filesystem::absolute(options->path).lexically_normal();
    const Spec spec = load_spec(options->path), vanilla_spec = matching_vanilla(spec);
    const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
    const DType kv = parse_kv_dtype(options->dtype);
    const Case model{spec, Protocol::hiergen, options->context, kv};
    const Case vanilla{vanilla_spec, Protocol::hiergen, options->context, kv};
    if (options->json) {
      std::cout << report(model, vanilla, name, options->dtype).dump(2) << '\n';
    } else {
      print_spec(spec, name);
      print_parameters(spec);
      print_costs(model, vanilla, options->dtype);
    }
  });
}

}  // namespace photon
