// Opening a model folder, with every disagreement between config.json and model.safetensors reported at once, and
// writing one with random weights.
#include "weights/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "base/bf16.h"
#include "base/threads.h"
#include "spec/tensor_names.h"
#include "weights/quantizer.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

// What may have gone wrong where a tensor has the shape `got` instead of wanted.shape; empty where nothing suggests
// itself.
std::string hint(const TensorSpec& wanted, const std::vector<std::int64_t>& got, const Spec& spec) {
  if (got.size() != 2 || wanted.shape.size() != 2) return "";
  if (got[0] == wanted.shape[1] && got[1] == wanted.shape[0]) return "; is it transposed?";
  if (got[1] == wanted.shape[1] && (wanted.name == names::embed || wanted.name == names::lm_head))
    return fmt::format("; was it trained with vocab_size {}?", got[0]);
  const std::int64_t l = names::place_of(wanted.name).level;
  if (l == 0) return "";
  const auto multiple = [](std::int64_t size, std::int64_t of) { return size > 0 && size % of == 0; };
  const std::int64_t below = spec.width(l - 1), width = spec.level(l).decoder.d_model;
  if (wanted.name == names::Level(l).chunker && got[0] == wanted.shape[0] && multiple(got[1], below))
    return fmt::format("; was it converted with chunk_size {}?", got[1] / below);
  if (wanted.name == names::Level(l).converter && got[1] == wanted.shape[1] && multiple(got[0], width))
    return fmt::format("; was it converted with converter_len {}?", got[0] / width);
  return "";
}

// Everything that keeps a file from being the weights of a spec, collected tensor by tensor.
class Disagreements {
 public:
  Disagreements(const SafeTensors& weights, const Spec& spec, bool check_values)
      : weights_(weights), spec_(spec), check_values_(check_values) {}

  std::vector<std::string> find() {
    const auto& metadata = weights_.metadata();
    if (const auto type = metadata.find(weight_type_key); type != metadata.end()) {
      quantized_ = quantized_dtype(type->second);
      if (!quantized_)  // then no dtype can be judged
        return {fmt::format("{} {} of the metadata is unknown; int8 and int4 are known", weight_type_key,
                            quoted_name(type->second))};
    }
    for (const TensorSpec& wanted : tensors(spec_)) {
      if (quantized_ && wanted.shape.size() == 2)
        check_quantized(wanted);
      else
        check_floats(wanted);
    }
    for (const auto& [name, tensor] : weights_.tensors())
      if (!known_.contains(name))
        add("{} {} is no tensor of config.json's model{}", quoted_name(name), to_string(tensor.shape), excuse(name));
    return std::move(found_);
  }

 private:
  template <class... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    found_.push_back(fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  // The tensor of that name, if it is there in that shape.
  const TensorView* shaped(const std::string& name, const std::vector<std::int64_t>& shape, const TensorSpec* matrix) {
    known_.insert(name);
    if (!weights_.contains(name)) {
      add("'{}' {} is missing", name, to_string(shape));
      return nullptr;
    }
    const TensorView& tensor = weights_.at(name);
    if (tensor.shape != shape) {
      add("'{}' is {}, config.json wants {}{}", name, to_string(tensor.shape), to_string(shape),
          matrix != nullptr ? hint(*matrix, tensor.shape, spec_) : "");
      return nullptr;
    }
    return &tensor;
  }
  bool aligned(const std::string& name, const TensorView& tensor) {
    if (!tensor.is_aligned())
      add("'{}' is not aligned to its {} elements; save the file with a current safetensors library", name,
          to_string(tensor.dtype));
    return tensor.is_aligned();
  }

  void check_floats(const TensorSpec& wanted) {
    const TensorView* tensor = shaped(wanted.name, wanted.shape, &wanted);
    if (tensor == nullptr) return;
    if (tensor->dtype != StoredType::f32 && tensor->dtype != StoredType::bf16)
      add("'{}' is {}; {}", wanted.name, to_string(tensor->dtype),
          weights_.contains(scale_name(wanted.name)) ? "the metadata has no weight_type, which quantised matrices need"
                                                     : "convert it to F32 or BF16");
    else
      aligned(wanted.name, *tensor);
  }

  void check_quantized(const TensorSpec& wanted) {
    const bool as_in_config = *quantized_ == DType::int8;  // int4 halves the columns, which no hint expects
    const TensorView* values =
        shaped(wanted.name, values_shape(*quantized_, wanted.shape), as_in_config ? &wanted : nullptr);
    if (values != nullptr) expect_dtype(wanted.name, *values, stored_type(*quantized_));
    const std::string name = scale_name(wanted.name);
    const TensorView* scales = shaped(name, scales_shape(wanted.shape), nullptr);
    const bool readable = scales != nullptr && expect_dtype(name, *scales, StoredType::bf16) && aligned(name, *scales);
    if (readable) add_problem(name, scale_problem(*quantized_, *scales));
    if (check_values_ && values != nullptr && values->dtype == StoredType::i8)
      add_problem(wanted.name, value_problem(*values));
  }
  bool expect_dtype(const std::string& name, const TensorView& tensor, StoredType dtype) {
    if (tensor.dtype != dtype)
      add("'{}' is {}, {} {} of the metadata wants {}", name, to_string(tensor.dtype), weight_type_key,
          to_string(*quantized_), to_string(dtype));
    return tensor.dtype == dtype;
  }
  void add_problem(const std::string& name, const std::string& problem) {
    if (!problem.empty()) add("'{}' {}", name, problem);
  }

  // Why a tensor may be there that does not belong.
  std::string excuse(const std::string& name) const {
    if (spec_.tie_embeddings && name.starts_with(names::lm_head)) return " (tie_embeddings is true)";
    if (spec_.decoder_embedding && name.starts_with(names::Level(1).content_proj))
      return " (decoder_embedding is true)";
    if (!spec_.learned_start && name.starts_with(names::start)) return " (learned_start is false)";
    if (name.starts_with(names::decoder_embed)) return " (decoder_embedding is not set)";
    for (std::int64_t l = 1; l <= spec_.n_levels(); ++l) {
      const names::Level of(l);
      for (const auto& [tensor, key] : {std::pair{&of.converter_bias, "converter_bias"},
                                        {&of.chunker_bias, "chunker_bias"},
                                        {&of.chunker_norm, "chunker_norm"}})
        if (name == *tensor) return fmt::format(" (level {}: {} is not set)", l, key);
    }
    if (!quantized_ && name.ends_with(".weight_scale"))
      return fmt::format(" (the metadata has no {})", weight_type_key);
    return "";
  }

  const SafeTensors& weights_;
  const Spec& spec_;
  bool check_values_;
  std::optional<DType> quantized_;
  std::set<std::string> known_;
  std::vector<std::string> found_;
};

// Views of a checked file's matrices.
std::map<std::string, MatrixView> matrices_of(const SafeTensors& weights, const Spec& spec) {
  std::map<std::string, MatrixView> matrices;
  for (const TensorSpec& tensor : tensors(spec)) {
    if (tensor.shape.size() != 2) continue;
    const TensorView& values = weights.at(tensor.name);
    MatrixView matrix{
        .dtype = *matrix_dtype(values.dtype), .rows = tensor.shape[0], .cols = tensor.shape[1], .values = values.bytes};
    if (matrix.is_quantized()) {
      const TensorView& scales = weights.at(scale_name(tensor.name));
      matrix.scales = {reinterpret_cast<const bf16*>(scales.bytes.data()), static_cast<std::size_t>(scales.elements())};
    }
    matrices.emplace(tensor.name, matrix);
  }
  return matrices;
}

DType common_dtype(const std::map<std::string, MatrixView>& matrices) {
  const DType first = matrices.begin()->second.dtype;  // every model has an embedding
  for (const auto& [name, matrix] : matrices)
    if (matrix.dtype != first) return DType::f32;
  return first;
}

std::string listed(std::vector<std::string> problems) {
  constexpr std::size_t most = 100;
  const std::size_t n = problems.size();
  if (n > most) {
    problems.resize(most);
    problems.push_back(fmt::format("… and {} more", n - most));
  }
  return fmt::format("{}", fmt::join(problems, "\n  "));
}

}  // namespace

ModelFolder open_model_folder(const fs::path& folder, bool check_finite) {
  if (!fs::is_directory(folder))
    throw InputError(fmt::format("{}: no folder; a model folder is wanted", folder.string()));
  const fs::path weights_path = folder / weights_file, tokenizer = folder / tokenizer_file;
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(weights_path) && fs::exists(index))
    throw InputError(fmt::format("{}: sharded weights are not supported; merge the shards into one {}", index.string(),
                                 weights_file));
  ModelFolder model{.path = folder, .spec = load_spec(folder), .weights = SafeTensors(weights_path)};
  const auto found = Disagreements(model.weights, model.spec, check_finite).find();
  if (!found.empty()) throw WeightsError(fmt::format("{}: {}", weights_path.string(), listed(found)));
  if (check_finite) model.weights.check_finite();
  if (fs::exists(tokenizer)) model.tokenizer = tokenizer;
  model.matrices = matrices_of(model.weights, model.spec);
  model.dtype = common_dtype(model.matrices);
  return model;
}

const MatrixView& ModelFolder::matrix(const std::string& name) const {
  const auto found = matrices.find(name);
  if (found == matrices.end())
    throw WeightsError(fmt::format("{}: there is no matrix {}", weights.path().string(), quoted_name(name)));
  return found->second;
}

void create_model_folder(const fs::path& folder) {
  for (const char* name : {config_file, weights_file, tokenizer_file})
    if (fs::exists(folder / name))
      throw InputError(fmt::format("{}: already holds a model ({}); choose another folder", folder.string(), name));
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw InputError(fmt::format("{}: cannot create the folder: {}", folder.string(), error.message()));
}

void init_model_folder(const Spec& spec, const fs::path& folder, const InitOptions& options) {
  if (options.dtype != DType::f32 && options.dtype != DType::bf16)
    throw InputError(fmt::format("dtype {} cannot be initialised: f32 or bf16 is wanted", to_string(options.dtype)));
  const auto found = problems(spec);
  if (!found.empty()) throw SpecError(fmt::format("{}: {}", folder.string(), listed(found)));
  create_model_folder(folder);
  const InitialSource source(spec, options);
  Rounder rounder(spec, source, options.dtype, usable_cpus());
  write_safetensors(folder / weights_file, rounder.tensors(),
                    {{"format", "photon-lm"}, {"seed", fmt::format("{}", options.seed)}});
  write_atomically(folder / config_file, to_json(spec));  // last: a folder with a config.json is complete
}

}  // namespace photon
