// Where a model's tensors come from: a folder, a random generator, or another source under other names.  What loads,
// initialises, rounds, exports or imports a model reads it through here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "spec/spec.h"
#include "weights/quantized.h"

namespace photon {

struct ModelFolder;

/// Row r of a tensor as float32, out [columns]; a vector is one row.  May be called from several threads, and as long
/// as what the source itself borrows lives, also without the source.
using ReadRow = std::function<void(std::int64_t r, std::span<float> out)>;

/// May be used from several threads.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// @throws WeightsError where there is no tensor of that name and shape.
  virtual ReadRow rows(const TensorSpec& tensor) const = 0;
  /// The tensor as a file holds it, for those who take it as it is; a vector is one row.  None where it is not in one.
  virtual std::optional<MatrixView> stored(const TensorSpec& tensor) const;
  /// For messages: "models/photon-stories/model.safetensors".
  virtual std::string name() const = 0;

  /// All rows.
  virtual std::vector<float> values(const TensorSpec& tensor) const;
};
std::int64_t row_count(const TensorSpec& tensor);     // 1 of a vector
std::int64_t column_count(const TensorSpec& tensor);  // the elements of a vector

/// The weights of an opened folder, which it borrows.
class FolderSource final : public TensorSource {
 public:
  explicit FolderSource(const ModelFolder& folder) : folder_(folder) {}
  ReadRow rows(const TensorSpec& tensor) const override;
  std::optional<MatrixView> stored(const TensorSpec& tensor) const override;
  std::string name() const override;

 private:
  const ModelFolder& folder_;
};

// ---- random weights, of two kinds: the same seed gives other numbers ----

/// How training begins: normal with std 0.02 for matrices, ones for norms; residual outputs (attn.o, mlp.down) scaled
/// by 1/sqrt(2·n_layers) if scale_residual. shake adds noise of std 0.2 to norms and of max(0.05, 0.7/sqrt(columns)) to
/// the rest: no zero or one hides a path.  Biases and how fast a memory's scores fall begin at 0.
struct InitOptions {
  std::uint64_t seed = 0;
  bool shake = false;
  bool scale_residual = false;
  double memory_offset = 0;  // of every head: what a memory's scores begin with
  DType dtype = DType::f32;  // of a folder that is written: f32 or bf16
};
/// One tensor, row-major: a function of (seed, name, shape) only, so the same whoever asks.
std::vector<float> initial_values(const TensorSpec& tensor, const Spec& spec, const InitOptions& options);

/// These values: what `photon init` writes and training begins with.  A tensor is made as a whole when its rows are
/// asked for.  Borrows the spec.
class InitialSource final : public TensorSource {
 public:
  InitialSource(const Spec& spec, const InitOptions& options) : spec_(spec), options_(options) {}
  ReadRow rows(const TensorSpec& tensor) const override;
  std::vector<float> values(const TensorSpec& tensor) const override;
  std::string name() const override { return "initial weights"; }

 private:
  const Spec& spec_;
  InitOptions options_;
};

/// For benchmarks, whose weights need only be of a usual size: uniform with std 0.02, ones for norms, 0.02 for the
/// start latent.  Every row is made by itself, so that billions of them take seconds and no memory.
class UniformSource final : public TensorSource {
 public:
  explicit UniformSource(std::uint64_t seed) : seed_(seed) {}
  ReadRow rows(const TensorSpec& tensor) const override;
  std::string name() const override { return "random weights"; }

 private:
  std::uint64_t seed_;
};

// ---- other names ----

/// Tensors of another source under other names, their rows in another order: what exports, imports and models that
/// begin with the weights of another one are made of.  Borrows both sources.
class MappedSource final : public TensorSource {
 public:
  /// The other source's tensor, and which of its rows: row i is its row rows[i]; empty: all as they lie.
  struct Origin {
    TensorSpec tensor;
    std::vector<std::int64_t> rows{};
  };
  using Map = std::function<std::optional<Origin>(const TensorSpec& wanted)>;
  /// @param rest  has the tensors for which the map knows no origin
  MappedSource(const TensorSource& other, Map map, const TensorSource* rest = nullptr);
  ReadRow rows(const TensorSpec& tensor) const override;
  std::optional<MatrixView> stored(const TensorSpec& tensor) const override;
  std::string name() const override { return other_.name(); }

 private:
  const TensorSource& other_;
  Map map_;
  const TensorSource* rest_;
};

}  // namespace photon
