// Opening a model folder, with every disagreement between config.json and model.safetensors reported at once, and
// writing one with random weights.
#include "weights/model_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/bf16.h"
#include "base/random.h"
#include "base/threads.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

constexpr const char* config_name = "config.json";
constexpr const char* weights_name = "model.safetensors";
constexpr const char* tokenizer_name = "tokenizer.model";

// levels.2.decoder.layers.0.attn.o.weight: which stack of the spec, if any, a tensor belongs to.
struct Place {
  std::int64_t level = 0;            // 1…L; 0 outside the levels
  const StackSpec* stack = nullptr;  // encoder, decoder or trunk
  std::string_view rest;             // the name without what precedes
};

Place place_of(std::string_view name, const Spec& spec) {
  const auto take = [&](std::string_view prefix) {
    if (!name.starts_with(prefix)) return false;
    name.remove_prefix(prefix.size());
    return true;
  };
  Place place;
  if (take("trunk.")) {
    place.stack = &*spec.trunk;
  } else {
    for (std::int64_t l = 1; l <= spec.n_levels() && place.level == 0; ++l)
      if (take(fmt::format("levels.{}.", l))) place.level = l;
    if (place.level > 0 && take("encoder."))
      place.stack = &spec.level(place.level).encoder;
    else if (place.level > 0 && take("decoder."))
      place.stack = &spec.level(place.level).decoder;
  }
  place.rest = name;
  return place;
}

// What may have gone wrong where a tensor has the shape `got` instead of wanted.shape; empty where nothing suggests
// itself.
std::string hint(const TensorSpec& wanted, const std::vector<std::int64_t>& got, const Spec& spec) {
  if (got.size() != 2 || wanted.shape.size() != 2) return "";
  const Place place = place_of(wanted.name, spec);
  if (got[0] == wanted.shape[1] && got[1] == wanted.shape[0]) return "; is it transposed?";
  if (got[1] == wanted.shape[1] && (wanted.name == "embed.weight" || wanted.name == "lm_head.weight"))
    return fmt::format("; was it trained with vocab_size {}?", got[0]);
  if (place.level == 0) return "";
  const auto multiple = [](std::int64_t size, std::int64_t of) { return size > 0 && size % of == 0; };
  const std::int64_t below = spec.width(place.level - 1), width = spec.level(place.level).decoder.d_model;
  if (place.rest == "chunker.weight" && got[0] == wanted.shape[0] && multiple(got[1], below))
    return fmt::format("; was it converted with chunk_size {}?", got[1] / below);
  if (place.rest == "converter.weight" && got[1] == wanted.shape[1] && multiple(got[0], width))
    return fmt::format("; was it converted with converter_len {}?", got[0] / width);
  return "";
}

// Everything that keeps `weights` from being the weights of `spec`.
std::vector<std::string> disagreements(const SafeTensors& weights, const Spec& spec) {
  std::vector<std::string> found;
  std::set<std::string_view> known;
  const auto wanted_tensors = tensors(spec);
  for (const TensorSpec& wanted : wanted_tensors) {
    known.insert(wanted.name);
    if (!weights.contains(wanted.name)) {
      found.push_back(fmt::format("'{}' {} is missing", wanted.name, to_string(wanted.shape)));
      continue;
    }
    const TensorView& tensor = weights.at(wanted.name);
    if (tensor.shape != wanted.shape)
      found.push_back(fmt::format("'{}' is {}, config.json wants {}{}", wanted.name, to_string(tensor.shape),
                                  to_string(wanted.shape), hint(wanted, tensor.shape, spec)));
    else if (tensor.dtype != DType::f32 && tensor.dtype != DType::bf16)
      found.push_back(fmt::format("'{}' is {}; convert it to F32 or BF16", wanted.name, to_string(tensor.dtype)));
    else if (!tensor.is_aligned())
      found.push_back(
          fmt::format("'{}' is not aligned to its {} elements; save the file with a current safetensors library",
                      wanted.name, to_string(tensor.dtype)));
  }
  for (const auto& [name, tensor] : weights.tensors())
    if (!known.contains(name))
      found.push_back(fmt::format("{} {} is no tensor of config.json's model{}", quoted_name(name),
                                  to_string(tensor.shape),
                                  name == "lm_head.weight" ? " (tie_embeddings is true)" : ""));
  return found;
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

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// values[i] += std · N(0, 1).  Every block of elements has its own generator, so threads do not change the values.
void add_normal(std::span<float> values, double std, std::uint64_t seed, std::uint64_t stream) {
  constexpr std::int64_t block = 1 << 16;
  const auto n = static_cast<std::int64_t>(values.size());
  const int threads = n > block ? static_cast<int>(usable_cpus()) : 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (std::int64_t first = 0; first < n; first += block) {
    Random random(seed, stream + static_cast<std::uint64_t>(first / block));
    for (std::int64_t i = first; i < std::min(first + block, n); ++i)
      values[static_cast<std::size_t>(i)] += static_cast<float>(std * random.normal());
  }
}

std::vector<std::byte> to_bytes(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(dtype)));
  if (dtype == DType::bf16) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bf16 value = to_bf16(values[i]);
      std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
    }
  } else if (!bytes.empty()) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  return bytes;
}

}  // namespace

ModelFolder open_model_folder(const fs::path& folder, bool check_finite) {
  if (!fs::is_directory(folder))
    throw InputError(fmt::format("{}: no folder; a model folder is wanted", folder.string()));
  const fs::path weights_path = folder / weights_name, tokenizer = folder / tokenizer_name;
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(weights_path) && fs::exists(index))
    throw InputError(fmt::format("{}: sharded weights are not supported; merge the shards into one {}", index.string(),
                                 weights_name));
  ModelFolder model{folder, load_spec(folder), SafeTensors(weights_path), std::nullopt};
  const auto found = disagreements(model.weights, model.spec);
  if (!found.empty()) throw WeightsError(fmt::format("{}: {}", weights_path.string(), listed(found)));
  if (check_finite) model.weights.check_finite();
  if (fs::exists(tokenizer)) model.tokenizer = tokenizer;
  return model;
}

std::vector<float> initial_values(const TensorSpec& tensor, const Spec& spec, const InitOptions& options) {
  std::int64_t elements = 1;
  for (const std::int64_t dimension : tensor.shape) elements *= dimension;
  const bool norm = tensor.name.ends_with("norm.weight");
  std::vector<float> values(static_cast<std::size_t>(elements), norm ? 1.0f : 0.0f);

  const std::uint64_t stream = fnv1a(tensor.name);
  if (!norm) {
    const bool residual = tensor.name.ends_with(".attn.o.weight") || tensor.name.ends_with(".mlp.down.weight");
    double std = 0.02;
    if (residual && options.scale_residual)
      std /= std::sqrt(2.0 * static_cast<double>(place_of(tensor.name, spec).stack->n_layers));
    add_normal(values, std, options.seed, stream);
  }
  if (options.shake) {
    const auto fan_in = static_cast<double>(tensor.shape.back());
    add_normal(values, norm ? 0.2 : std::max(0.05, 0.7 / std::sqrt(fan_in)), options.seed, ~stream);
  }
  return values;
}

void init_model_folder(const Spec& spec, const fs::path& folder, const InitOptions& options) {
  if (options.dtype != DType::f32 && options.dtype != DType::bf16)
    throw InputError(fmt::format("dtype {} cannot be initialised: F32 or BF16 is wanted", to_string(options.dtype)));
  const auto found = problems(spec);
  if (!found.empty()) throw SpecError(fmt::format("{}: {}", folder.string(), listed(found)));
  for (const char* name : {config_name, weights_name})
    if (fs::exists(folder / name))
      throw InputError(fmt::format("{}: already holds a model ({}); choose another folder", folder.string(), name));

  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw InputError(fmt::format("{}: cannot create the folder: {}", folder.string(), error.message()));
  std::vector<std::vector<std::byte>> storage;
  std::vector<TensorToWrite> to_write;
  for (const TensorSpec& tensor : tensors(spec)) {
    storage.push_back(to_bytes(initial_values(tensor, spec, options), options.dtype));
    to_write.push_back({tensor.name, options.dtype, tensor.shape, storage.back()});
  }
  write_safetensors(folder / weights_name, std::move(to_write),
                    {{"format", "photon-lm"}, {"seed", fmt::format("{}", options.seed)}});
  write_atomically(folder / config_name, to_json(spec));  // last: a folder with a config.json is complete
}

}  // namespace photon
