// photon quantize: a model folder with matrices rounded to int8, int4 or bfloat16.
#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/threads.h"
#include "cli/commands.h"
#include "weights/quantizer.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

struct QuantizeArguments {
  std::string in, out, type;
  bool json = false;
};

void print(const QuantizeReport& report, const QuantizeArguments& arguments) {
  const auto ratio = static_cast<double>(report.bytes_before) / static_cast<double>(report.bytes_after);
  fmt::print("{}: {} bytes of weights, {} before: {:.2f} times smaller\n\n", arguments.out, report.bytes_after,
             report.bytes_before, ratio);
  fmt::print("{:<14}{:>8}{:>14}{:>22}{:>10}\n", arguments.type, "tensors", "parameters", "relative rms error",
             "largest");
  for (const auto& [kind, losses] : report.losses)
    fmt::print("{:<14}{:>8}{:>14}{:>22.5f}{:>10.5f}\n", kind, losses.tensors, losses.parameters, losses.mean(),
               losses.largest);
}

ordered_json to_json(const QuantizeReport& report, const QuantizeArguments& arguments) {
  ordered_json kinds = ordered_json::array();
  for (const auto& [kind, losses] : report.losses)
    kinds.push_back({{"kind", kind},
                     {"tensors", losses.tensors},
                     {"parameters", losses.parameters},
                     {"relative_rms_error", losses.mean()},
                     {"largest_relative_rms_error", losses.largest}});
  return {{"model", arguments.out},
          {"type", arguments.type},
          {"bytes_before", report.bytes_before},
          {"bytes_after", report.bytes_after},
          {"kinds", kinds}};
}

}  // namespace

void add_quantize(Command app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  Command command = app.subcommand("quantize", "Write a model folder with smaller weights");
  command.option("in", arguments->in, "Model folder with F32 or BF16 weights").required();
  command.option("out", arguments->out, "Model folder to write; must not hold a model yet").required();
  command
      .option("--type", arguments->type,
              "int8 and int4: every matrix, one scale for 32 inputs; bf16: every weight, as training writes them")
      .required()
      .one_of({"int8", "int4", "bf16"});
  command.flag("--json", arguments->json, "Print one JSON object (default: off)");
  command.footer(
      "Example: photon quantize models/photon-stories /tmp/stories-int8 --type int8\n"
      "What it costs: photon score -m /tmp/stories-int8 --compare models/photon-stories --file story.txt");
  command.runs([arguments] {
    const QuantizeReport report = quantize(arguments->in, arguments->out, parse_dtype(arguments->type), usable_cpus());
    if (arguments->json)
      std::cout << to_json(report, *arguments).dump() << std::endl;
    else
      print(report, *arguments);
  });
}

}  // namespace photon
