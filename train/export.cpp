// Model folders from and into the training model.
#include "train/export.h"

#include <fmt/format.h>

#include "base/file.h"

namespace photon {

void save_model_folder(const Photon& model, const std::filesystem::path& folder, DType dtype) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    throw InputError(fmt::format("a model folder holds f32 or bf16 weights, not {}", to_string(dtype)));
  torch::NoGradGuard no_grad;
  const auto torch_dtype = dtype == DType::f32 ? torch::kFloat32 : torch::kBFloat16;
  std::vector<torch::Tensor> converted;  // alive while their bytes are written
  std::vector<TensorToWrite> files;
  for (const auto& [name, weight] : model.weights()) {
    converted.push_back(weight.to(torch::kCPU, torch_dtype).contiguous());
    const auto* bytes = static_cast<const std::byte*>(converted.back().data_ptr());
    files.push_back({name, stored_type(dtype), weight.sizes().vec(), {bytes, converted.back().nbytes()}});
  }
  std::filesystem::create_directories(folder);
  write_safetensors(folder / "model.safetensors", std::move(files), {{"format", "photon-lm"}});
  write_atomically(folder / "config.json", to_json(model.spec()));
}

void load_weights(Photon& model, const std::filesystem::path& folder) {
  const ModelFolder stored = open_model_folder(folder);
  if (!(stored.spec == model.spec()))
    throw WeightsError(
        fmt::format("{}: config.json describes another model than the one to load into", folder.string()));
  torch::NoGradGuard no_grad;
  for (auto& [name, weight] : model.weights()) {
    auto values = to_floats(stored.weights.at(name));
    weight.copy_(torch::from_blob(values.data(), weight.sizes()));
  }
}

std::shared_ptr<Photon> load_model_folder(const std::filesystem::path& folder) {
  auto model = std::make_shared<Photon>(load_spec(folder));
  load_weights(*model, folder);
  return model;
}

}  // namespace photon
