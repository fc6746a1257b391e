#include "engine/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace photon {
namespace {

Weight as_weight(MatView<const float> m) { return {.type = Weight::Type::f32, .f32 = m}; }
Weight as_weight(MatView<const bf16> m) { return {.type = Weight::Type::bf16, .b16 = m}; }

float converted(float x, float) { return x; }
bf16 converted(float x, bf16) { return to_bf16(x); }

// The elements of an F32 or BF16 tensor, one by one and without alignment.
float element(const TensorView& tensor, std::int64_t i) {
  if (tensor.dtype == DType::f32) {
    float x = 0;
    std::memcpy(&x, tensor.bytes.data() + i * 4, 4);
    return x;
  }
  bf16 x;
  std::memcpy(&x, tensor.bytes.data() + i * 2, 2);
  return to_float(x);
}

class Loader {
 public:
  Loader(Model& model, const SafeTensors& weights) : model_(model), weights_(weights) {}

  Weight matrix(const std::string& name) {
    return model_.dtype == Weight::Type::f32 ? matrix<float>(name, DType::f32, model_.converted_f32)
                                             : matrix<bf16>(name, DType::bf16, model_.converted_bf16);
  }
  std::vector<float> vector(const std::string& name) const {
    const TensorView& tensor = weights_.at(name);
    std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
    for (std::int64_t i = 0; i < tensor.elements(); ++i) values[static_cast<std::size_t>(i)] = element(tensor, i);
    return values;
  }
  StackWeights stack(const std::string& at, const StackSpec& spec) {
    StackWeights s{.spec = spec, .norm_eps = static_cast<float>(model_.spec.norm_eps)};
    for (std::int64_t i = 0; i < spec.n_layers; ++i) {
      const std::string layer = fmt::format("{}.layers.{}.", at, i);
      const auto in_layer = [&](const char* name) { return matrix(layer + name); };
      s.layers.push_back({.attn_norm = vector(layer + "attn_norm.weight"),
                          .mlp_norm = vector(layer + "mlp_norm.weight"),
                          .q = in_layer("attn.q.weight"),
                          .k = in_layer("attn.k.weight"),
                          .v = in_layer("attn.v.weight"),
                          .o = in_layer("attn.o.weight"),
                          .gate = in_layer("mlp.gate.weight"),
                          .up = in_layer("mlp.up.weight"),
                          .down = in_layer("mlp.down.weight")});
      const BlockWeights& b = s.layers.back();
      for (const Weight* w : {&b.q, &b.k, &b.v, &b.o, &b.gate, &b.up, &b.down}) s.bytes += bytes_of(*w);
    }
    s.norm = vector(at + ".norm.weight");
    return s;
  }
  LevelWeights level(std::int64_t l) {
    const LevelSpec& spec = model_.spec.level(l);
    const std::string at = fmt::format("levels.{}.", l);
    const auto optional_matrix = [&](const std::string& name) {
      return weights_.contains(name) ? std::optional(matrix(name)) : std::nullopt;
    };
    return {.chunker = optional_matrix(at + "chunker.weight"),
            .encoder = stack(at + "encoder", spec.encoder),
            .converter = matrix(at + "converter.weight"),
            .content_proj = optional_matrix(at + "content_proj.weight"),
            .decoder = stack(at + "decoder", spec.decoder)};
  }

 private:
  template <class T>
  Weight matrix(const std::string& name, DType dtype, std::vector<Matrix<T>>& owners) {
    const TensorView& tensor = weights_.at(name);
    const std::int64_t rows = tensor.shape.at(0), cols = tensor.shape.at(1);
    const auto* data = tensor.bytes.data();
    if (tensor.dtype == dtype && reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0)
      return as_weight(MatView<const T>{reinterpret_cast<const T*>(data), rows, cols, cols});
    Matrix<T>& owner = owners.emplace_back(rows, cols);
    for (std::int64_t i = 0; i < rows * cols; ++i) owner.data()[i] = converted(element(tensor, i), T{});
    return as_weight(std::as_const(owner).view());
  }

  Model& model_;
  const SafeTensors& weights_;
};

// Reads a byte of every page, so that the first prompt is not kept waiting for the disk.
void touch(const SafeTensors& weights) {
  constexpr std::size_t page = 4096;
  for (const auto& [name, tensor] : weights.tensors())
    for (std::size_t i = 0; i < tensor.bytes.size(); i += page)
      static_cast<void>(*static_cast<const volatile std::byte*>(&tensor.bytes[i]));
}

Weight::Type stored_dtype(const SafeTensors& weights) {
  for (const auto& [name, tensor] : weights.tensors())
    if (tensor.shape.size() == 2 && tensor.dtype != DType::bf16) return Weight::Type::f32;
  return Weight::Type::bf16;
}

}  // namespace

Model load_model(const std::filesystem::path& path, std::optional<Weight::Type> dtype) {
  const auto folder = std::make_shared<const ModelFolder>(open_model_folder(path));
  Model model;
  model.spec = folder->spec;
  model.dtype = dtype.value_or(stored_dtype(folder->weights));
  model.tokenizer = folder->tokenizer;
  model.folder = folder;

  touch(folder->weights);
  Loader load(model, folder->weights);
  model.embed = load.matrix("embed.weight");
  for (std::int64_t l = 1; l <= model.n_levels(); ++l) model.levels.push_back(load.level(l));
  if (model.spec.trunk)
    model.trunk = load.stack("trunk", *model.spec.trunk);
  else
    model.start = load.vector("start.weight");
  model.lm_head = model.spec.tie_embeddings ? model.embed : load.matrix("lm_head.weight");
  return model;
}

std::int64_t bytes_of(const Weight& w) { return w.rows() * w.cols() * (w.type == Weight::Type::f32 ? 4 : 2); }

void read_row(const Weight& w, std::int64_t r, std::span<float> out) {
  if (w.type == Weight::Type::f32)
    std::ranges::copy(w.f32.row(r), out.begin());
  else
    std::ranges::transform(w.b16.row(r), out.begin(), to_float);
}

}  // namespace photon
