// photon init: a model folder with random weights.
#include <fmt/format.h>

#include <memory>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

struct InitArguments {
  std::string config, folder, dtype = "f32";
  InitOptions options;
};

void run_init(InitArguments& arguments) {
  arguments.options.dtype = parse_dtype(arguments.dtype);
  const Spec spec = load_spec(arguments.config);
  init_model_folder(spec, arguments.folder, arguments.options);
  const ModelFolder model = open_model_folder(arguments.folder);
  std::int64_t parameters = 0, bytes = 0;
  for (const auto& [name, tensor] : model.weights.tensors()) {
    parameters += tensor.elements();
    bytes += static_cast<std::int64_t>(tensor.bytes.size());
  }
  fmt::print("{}: {} parameters in {} tensors, {} bytes of {}, seed {}{}\n", arguments.folder, parameters,
             model.weights.tensors().size(), bytes, arguments.dtype, arguments.options.seed,
             arguments.options.shake ? ", shaken" : "");
}

}  // namespace

void add_init(Command app) {
  auto arguments = std::make_shared<InitArguments>();
  Command command = app.subcommand("init", "Write a model folder with random weights");
  command.option("config", arguments->config, "config.json, or a model folder to take it from").required();
  command.option("folder", arguments->folder, "Model folder to write; must not hold a model yet").required();
  command.option("--seed", arguments->options.seed, "Seed of the weights").check(&seed_problem);
  command.flag("--shake", arguments->options.shake,
               "Add noise to every parameter, norms included, so that outputs vary (default: off)");
  command.option("--dtype", arguments->dtype, "Storage type of the weights").one_of({"f32", "bf16"});
  command.footer("Example: photon init configs/photon-600m.json /tmp/photon-600m --seed 1 --dtype bf16");
  command.runs([arguments] { run_init(*arguments); });
}

}  // namespace photon
