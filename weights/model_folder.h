// A model folder: config.json + model.safetensors (+ tokenizer.model).  docs/model-format.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spec/spec.h"
#include "weights/quantized.h"
#include "weights/safetensors.h"
#include "weights/tensor_source.h"

namespace photon {

/// Names of the files.
inline constexpr const char *config_file = "config.json", *weights_file = "model.safetensors",
                            *tokenizer_file = "tokenizer.model";

/// An opened and checked folder: every tensor of tensors(spec) is there with its shape, and no other.  Vectors are F32
/// or BF16; so are matrices, or all of them are quantised to the type that the metadata says, each with its scales.
struct ModelFolder {
  std::filesystem::path path;
  Spec spec;
  SafeTensors weights;
  std::optional<std::filesystem::path> tokenizer{};  // tokenizer.model, where the folder has one
  DType dtype = DType::f32;                          // of the matrices; f32 if not all are bf16
  std::map<std::string, MatrixView> matrices{};      // by name: those of tensors(spec) that have two dimensions

  bool is_quantized() const { return photon::is_quantized(dtype); }
  const MatrixView& matrix(const std::string& name) const;  ///< @throws WeightsError if absent
};

/// Every tensor is aligned to its elements, and scales are finite (int8: and not negative).  @throws SpecError,
/// WeightsError or InputError naming file and field; all missing, extra and misshapen tensors at once.
/// @param check_finite  also refuses NaN and infinity in every float tensor, and -128 among int8 values; reads them
/// all.
ModelFolder open_model_folder(const std::filesystem::path& folder, bool check_finite = false);

/// Creates the folder of a new model, if absent.  @throws InputError if it holds one of a model's files.
void create_model_folder(const std::filesystem::path& folder);
/// Writes config.json and model.safetensors with initial weights (InitialSource) into `folder` (created if absent).
/// @throws InputError if the folder already holds a model.
void init_model_folder(const Spec& spec, const std::filesystem::path& folder, const InitOptions& options);

}  // namespace photon
