// Model folders from and into the training model.
#include "train/export.h"

#include <fmt/format.h>

#include "base/file.h"
#include "weights/model_folder.h"

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
  write_safetensors(folder / weights_file, std::move(files), {{"format", "photon-lm"}});
  write_atomically(folder / config_file, to_json(model.spec()));
}

std::shared_ptr<Photon> load_model_folder(const std::filesystem::path& folder) {
  const ModelFolder stored = open_model_folder(folder);
  return std::make_shared<Photon>(stored.spec, FolderSource(stored));
}

}  // namespace photon
