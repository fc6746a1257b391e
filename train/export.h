// Model folders from and into the training model: config.json + model.safetensors, strict both ways.
#pragma once

#include <filesystem>

#include "train/model.h"
#include "weights/safetensors.h"

namespace photon {

/// Writes config.json and model.safetensors into `folder` (created if absent; files there are replaced atomically).
/// dtype f32 or bf16 (rounded to nearest even).  The tokenizer is the caller's to copy.
/// @throws InputError or WeightsError naming the file
void save_model_folder(const Photon& model, const std::filesystem::path& folder, DType dtype);

/// A model on the CPU with the config and weights of `folder`.  @throws as open_model_folder() does
std::shared_ptr<Photon> load_model_folder(const std::filesystem::path& folder);

}  // namespace photon
