// photon quantize: a model folder with matrices rounded to int8, int4 or bfloat16.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/commands.h"
#include "kernels/kernels.h"
#include "kernels/weights.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

static_assert(scale_group == quant_group, "files and kernels agree on the groups");

// "attn.q" of levels.1.encoder.layers.0.attn.q.weight, "norm", "embed": what is alike in all places of a model.
std::string kind_of(std::string_view name) {
  name.remove_suffix(std::string_view(".weight").size());
  const bool in_block = name.find(".attn.") != name.npos || name.find(".mlp.") != name.npos;
  auto dot = name.rfind('.');
  if (in_block) dot = name.rfind('.', dot - 1);
  return std::string(dot == name.npos ? name : name.substr(dot + 1));
}

// How far rounded tensors of one kind are from the originals: ‖ŵ - w‖ / ‖w‖ of each.
struct Losses {
  std::int64_t tensors = 0, parameters = 0;
  double sum = 0, largest = 0;
  double mean() const { return sum / static_cast<double>(tensors); }
};

// The tensors of a rounded folder, each made when the writer comes to it.
class Rounder {
 public:
  Rounder(const ModelFolder& folder, DType dtype) : folder_(folder), dtype_(dtype) {}

  std::vector<TensorToWrite> tensors() {
    std::vector<TensorToWrite> result;
    for (const TensorSpec& tensor : photon::tensors(folder_.spec)) {
      const std::string& name = tensor.name;
      const TensorView& stored = folder_.weights.at(name);
      if (dtype_ == DType::bf16) {  // the vectors, too
        const std::int64_t cols = tensor.shape.back();
        const MatrixView view{.dtype = *matrix_dtype(stored.dtype),
                              .rows = stored.elements() / cols,
                              .cols = cols,
                              .values = stored.bytes};
        result.push_back({name, stored_type(dtype_), tensor.shape, {}, [=, this] { return values(name, view); }});
      } else if (tensor.shape.size() == 2) {
        const MatrixView view = folder_.matrix(name);
        result.push_back({name, stored_type(dtype_), values_shape(dtype_, tensor.shape), {}, [=, this] {
                            return values(name, view);
                          }});
        result.push_back(
            {scale_name(name), StoredType::bf16, scales_shape(tensor.shape), {}, [=, this] { return scales(view); }});
      } else {
        result.push_back({name, stored.dtype, stored.shape, stored.bytes});
      }
    }
    return result;
  }
  const std::map<std::string, Losses>& losses() const { return losses_; }  // by kind, once all tensors are made

 private:
  struct Rounded {
    std::vector<std::byte> values;
    std::vector<bf16> scales;
    double squares = 0, squared_error = 0;
  };

  Rounded round(const MatrixView& matrix) const {
    MatrixView out{.dtype = dtype_, .rows = matrix.rows, .cols = matrix.cols};
    Rounded r;
    r.values.resize(static_cast<std::size_t>(matrix.rows * out.values_row_bytes()));
    const auto groups = static_cast<std::size_t>(out.is_quantized() ? quant_groups(matrix.cols) : 0);
    r.scales.resize(static_cast<std::size_t>(matrix.rows) * groups);
    std::vector<double> squares(static_cast<std::size_t>(matrix.rows)), errors(squares.size());
#pragma omp parallel num_threads(static_cast <int>(threads()))
    {
      std::vector<float> w(static_cast<std::size_t>(matrix.cols)), rounded(w.size());
#pragma omp for
      for (std::int64_t row = 0; row < matrix.rows; ++row) {
        const auto at = static_cast<std::size_t>(row), row_bytes = static_cast<std::size_t>(out.values_row_bytes());
        const auto values = std::span(r.values).subspan(at * row_bytes, row_bytes);
        matrix.read_row(row, w);
        round_row(w, values, std::span(r.scales).subspan(at * groups, groups), rounded);
        for (std::size_t i = 0; i < w.size(); ++i) {
          squares[at] += static_cast<double>(w[i]) * w[i];
          errors[at] += std::pow(static_cast<double>(rounded[i]) - w[i], 2);
        }
      }
    }
    for (const double x : squares) r.squares += x;  // in order, whatever the threads
    for (const double x : errors) r.squared_error += x;
    return r;
  }
  void round_row(std::span<const float> w, std::span<std::byte> values, std::span<bf16> scales,
                 std::span<float> rounded) const {
    if (dtype_ == DType::bf16) {
      for (std::size_t i = 0; i < w.size(); ++i) {
        const bf16 value = to_bf16(w[i]);
        std::memcpy(values.data() + i * sizeof value, &value, sizeof value);
        rounded[i] = to_float(value);
      }
    } else {
      quantize_row(dtype_, w, values, scales);
      dequantize_row(dtype_, {values.data(), scales.data()}, rounded);
    }
  }

  std::vector<std::byte> values(const std::string& name, const MatrixView& matrix) {
    Rounded r = round(matrix);
    if (!std::isfinite(r.squared_error))
      throw WeightsError(fmt::format("{}: '{}' holds a value beyond the range of {}", folder_.weights.path().string(),
                                     name, to_string(dtype_)));
    const double loss = r.squares > 0 ? std::sqrt(r.squared_error / r.squares) : 0;
    Losses& losses = losses_[kind_of(name)];
    losses.tensors += 1;
    losses.parameters += matrix.rows * matrix.cols;
    losses.sum += loss;
    losses.largest = std::max(losses.largest, loss);
    return std::move(r.values);
  }
  // Scales stand before the values in the file: rounding once for each holds one matrix in memory, not all.
  std::vector<std::byte> scales(const MatrixView& matrix) const {
    const Rounded r = round(matrix);
    const auto bytes = std::as_bytes(std::span(r.scales));
    return {bytes.begin(), bytes.end()};
  }

  const ModelFolder& folder_;
  DType dtype_;
  std::map<std::string, Losses> losses_;
};

struct QuantizeArguments {
  std::string in, out, type;
  bool json = false;
};

struct Report {
  std::int64_t bytes_before = 0, bytes_after = 0;
  std::map<std::string, Losses> losses;
};

Report quantize(const QuantizeArguments& arguments) {
  const ModelFolder folder = open_model_folder(arguments.in, /*check_finite=*/true);
  if (folder.is_quantized())
    throw InputError(fmt::format("{}: is {} already; quantise the model that it was made from", arguments.in,
                                 to_string(folder.dtype)));
  const fs::path out = arguments.out;
  create_model_folder(out);
  const DType dtype = parse_dtype(arguments.type);
  Rounder rounder(folder, dtype);
  auto metadata = folder.weights.metadata();
  if (is_quantized(dtype)) metadata[weight_type_key] = arguments.type;
  write_safetensors(out / weights_file, rounder.tensors(), metadata);
  if (folder.tokenizer) {
    const MappedFile tokenizer(*folder.tokenizer);
    write_atomically(out / tokenizer_file, [&](FileWriter& file) { file.write(tokenizer.bytes()); });
  }
  write_atomically(out / config_file, read_text(folder.path / config_file));  // last: now the folder is complete
  const auto size = [](const fs::path& path) { return static_cast<std::int64_t>(fs::file_size(path)); };
  return {size(folder.path / weights_file), size(out / weights_file), rounder.losses()};
}

void print(const Report& report, const QuantizeArguments& arguments) {
  const auto ratio = static_cast<double>(report.bytes_before) / static_cast<double>(report.bytes_after);
  fmt::print("{}: {} bytes of weights, {} before: {:.2f} times smaller\n\n", arguments.out, report.bytes_after,
             report.bytes_before, ratio);
  fmt::print("{:<14}{:>8}{:>14}{:>22}{:>10}\n", arguments.type, "tensors", "parameters", "relative rms error",
             "largest");
  for (const auto& [kind, losses] : report.losses)
    fmt::print("{:<14}{:>8}{:>14}{:>22.5f}{:>10.5f}\n", kind, losses.tensors, losses.parameters, losses.mean(),
               losses.largest);
}

ordered_json to_json(const Report& report, const QuantizeArguments& arguments) {
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

void add_quantize(CLI::App& app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model folder with smaller weights");
  command->add_option("in", arguments->in, "Model folder with F32 or BF16 weights")->required();
  command->add_option("out", arguments->out, "Model folder to write; must not hold a model yet")->required();
  command
      ->add_option("--type", arguments->type,
                   "int8 and int4: every matrix, one scale for 32 inputs; bf16: every weight, as training writes them")
      ->required()
      ->check(CLI::IsMember({"int8", "int4", "bf16"}));
  command->add_flag("--json", arguments->json, "Print one JSON object (default: off)");
  command->footer(
      "Example: photon quantize models/photon-stories /tmp/stories-int8 --type int8\n"
      "What it costs: photon score -m /tmp/stories-int8 --compare models/photon-stories --file story.txt");
  command->callback([arguments] {
    const Report report = quantize(*arguments);
    if (arguments->json)
      std::cout << to_json(report, *arguments).dump() << std::endl;
    else
      print(report, *arguments);
  });
}

}  // namespace photon
