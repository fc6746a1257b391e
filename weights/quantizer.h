// Rounding a model's weights to fewer bits, and how far off that is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "spec/spec.h"
#include "weights/safetensors.h"
#include "weights/tensor_source.h"

namespace photon {

/// How far rounded tensors of one kind are from the originals: |ŵ - w| / |w| of each, over all its elements.
struct RoundingLoss {
  std::int64_t tensors = 0, parameters = 0;
  double sum = 0, largest = 0;
  double mean() const { return sum / static_cast<double>(tensors); }
};

/// A model's tensors as a file of one type holds them: f32 and bf16 are of all tensors, int8 and int4 of the matrices,
/// with their scales, beside vectors as they are stored.  Each is made when the writer comes to it.
class Rounder {
 public:
  /// Borrows spec and source; `threads` change nothing but the time.
  Rounder(const Spec& spec, const TensorSource& source, DType dtype, std::int64_t threads)
      : spec_(spec), source_(source), dtype_(dtype), threads_(threads) {}

  /// What write_safetensors() wants.  It throws WeightsError where a value is beyond the type's range.
  std::vector<TensorToWrite> tensors();
  /// By kind ("attn.q", "embed"), once all tensors are made.
  const std::map<std::string, RoundingLoss>& losses() const { return losses_; }

 private:
  struct Rounded {
    std::vector<std::byte> values;
    std::vector<bf16> scales;
    double squares = 0, squared_error = 0;
  };
  Rounded round(const TensorSpec& tensor, DType dtype) const;
  std::vector<std::byte> values(const TensorSpec& tensor, DType dtype);
  std::vector<std::byte> scales(const TensorSpec& tensor) const;

  const Spec& spec_;
  const TensorSource& source_;
  DType dtype_;
  std::int64_t threads_;
  std::map<std::string, RoundingLoss> losses_;
};

struct QuantizeReport {
  std::int64_t bytes_before = 0, bytes_after = 0;  // of model.safetensors
  std::map<std::string, RoundingLoss> losses;
};
/// Writes the model folder `out` with the weights of `in` rounded to bf16, int8 or int4; config and tokenizer are the
/// same.
/// @throws InputError if `in` is quantised or `out` holds a model, WeightsError for weights that are not finite or
/// would not be: then there is no model in `out`.
QuantizeReport quantize(const std::filesystem::path& in, const std::filesystem::path& out, DType type,
                        std::int64_t threads);

}  // namespace photon
