#include "engine/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "kernels/kernels.h"
#include "spec/tensor_names.h"
#include "weights/tensor_source.h"

namespace photon {
namespace {

constexpr auto panel = static_cast<std::size_t>(panel_outputs);

class Loader {
 public:
  Loader(Model& model, const TensorSource& source) : model_(model), source_(source) {
    for (const TensorSpec& tensor : tensors(model.spec)) tensors_[tensor.name] = tensor;
  }

  bool has(const std::string& name) const { return tensors_.contains(name); }
  std::vector<float> vector(const std::string& name) const { return source_.values(tensors_.at(name)); }
  std::vector<float> optional_vector(const std::string& name) const {
    return has(name) ? vector(name) : std::vector<float>();
  }
  PackedWeight matrix(const std::string& name) { return stacked({name}); }
  /// Matrices of one input, outputs one after another.
  PackedWeight stacked(const std::vector<std::string>& names) {
    std::vector<Part> parts;
    std::vector<std::pair<const Part*, std::int64_t>> rows;
    for (const std::string& name : names) parts.push_back(part(name));
    for (const Part& p : parts)
      for (std::int64_t r = 0; r < p.rows; ++r) rows.emplace_back(&p, r);
    return pack(rows, parts.front().cols);
  }
  PackedWeight gated(const std::string& gate_name, const std::string& up_name) {
    const Part gate = part(gate_name), up = part(up_name);
    std::vector<std::pair<const Part*, std::int64_t>> rows;
    for (std::int64_t first = 0; first < gate.rows; first += panel_outputs)
      for (const Part* p : {&gate, &up})
        for (std::int64_t r = first; r < first + panel_outputs; ++r) rows.emplace_back(r < p->rows ? p : nullptr, r);
    PackedWeight w = pack(rows, gate.cols);
    w.gated = true;
    w.outputs = gate.rows + up.rows;  // without the padding of the two
    return w;
  }
  StackWeights stack(const names::Stack& name, const StackSpec& spec) {
    StackWeights s{.spec = spec, .norm_eps = static_cast<float>(model_.spec.norm_eps)};
    for (std::int64_t i = 0; i < spec.n_layers; ++i) {
      const names::Block layer = name.layer(i);
      s.layers.push_back({.attn_norm = vector(layer.attn_norm),
                          .mlp_norm = vector(layer.mlp_norm),
                          .qkv = stacked({layer.q, layer.k, layer.v}),
                          .o = matrix(layer.o),
                          .gate_up = gated(layer.gate, layer.up),
                          .down = matrix(layer.down)});
    }
    s.norm = vector(name.norm);
    return s;
  }
  LevelWeights level(std::int64_t l) {
    const LevelSpec& spec = model_.spec.level(l);
    const names::Level name(l);
    const auto optional_matrix = [&](const std::string& tensor) {
      return has(tensor) ? std::optional(matrix(tensor)) : std::nullopt;
    };
    return {.chunker_norm = optional_vector(name.chunker_norm),
            .chunker = optional_matrix(name.chunker),
            .chunker_bias = optional_vector(name.chunker_bias),
            .encoder = stack(name.encoder, spec.encoder),
            .converter = matrix(name.converter),
            .converter_bias = optional_vector(name.converter_bias),
            .content_proj = optional_matrix(name.content_proj),
            .decoder = stack(name.decoder, spec.decoder)};
  }
  /// An embedding where it is stored, or a copy of what the source makes.
  MatrixView embedding(const std::string& name) {
    const TensorSpec& tensor = tensors_.at(name);
    if (const auto stored = source_.stored(tensor)) return *stored;
    MatrixView m{.dtype = DType::bf16, .rows = row_count(tensor), .cols = column_count(tensor)};
    const std::int64_t bytes = m.rows * m.values_row_bytes();
    std::byte* const data = model_.memory.allocate(bytes);
    const ReadRow read = source_.rows(tensor);
    std::vector<float> row(static_cast<std::size_t>(m.cols));
    for (std::int64_t r = 0; r < m.rows; ++r) {
      read(r, row);
      kernels().to_bf16(row, {reinterpret_cast<bf16*>(data + r * m.values_row_bytes()), row.size()});
    }
    m.values = {data, static_cast<std::size_t>(bytes)};
    return m;
  }

 private:
  struct Part {
    std::int64_t rows = 0, cols = 0;
    ReadRow read;
    std::optional<MatrixView> as_is;  // stored as the kernels want it: quantised rows are not touched
  };
  Part part(const std::string& name) const {
    const TensorSpec& tensor = tensors_.at(name);
    auto stored = source_.stored(tensor);
    if (stored && (!stored->is_quantized() || stored->dtype != model_.dtype)) stored.reset();
    return {row_count(tensor), column_count(tensor), source_.rows(tensor), stored};
  }

  // rows: of which part, and which of its rows; no part: zeros.
  PackedWeight pack(const std::vector<std::pair<const Part*, std::int64_t>>& rows, std::int64_t k) {
    const std::int64_t outputs = std::ssize(rows);
    PackedWeight w{.type = model_.dtype, .outputs = outputs, .k = k};
    const std::int64_t bytes = panel_bytes(w.type, k), n_panels = w.n_panels();
    std::byte* const panels = model_.memory.allocate(n_panels * bytes);
#pragma omp parallel num_threads(static_cast <int>(threads()))
    {
      PanelRows buffer(w.type, k);
#pragma omp for schedule(static)
      for (std::int64_t p = 0; p < n_panels; ++p) {
        buffer.clear();
        for (std::int64_t o = 0; o < panel_outputs && p * panel_outputs + o < outputs; ++o)
          if (const auto& [part, r] = rows[static_cast<std::size_t>(p * panel_outputs + o)]; part != nullptr)
            part->as_is ? buffer.set(o, part->as_is->quantized_row(r)) : buffer.set(o, part->read, r);
        buffer.pack(panels + p * bytes);
      }
    }
    w.panels = panels;
    return w;
  }

  // The 16 rows of one panel, read and, where asked, quantised.
  class PanelRows {
   public:
    PanelRows(DType type, std::int64_t k)
        : type_(type),
          k_(k),
          value_bytes_(is_quantized(type) ? quantized_row_bytes(type, k) : 0),
          floats_(panel * static_cast<std::size_t>(k)),
          values_(panel * static_cast<std::size_t>(value_bytes_)),
          scales_(is_quantized(type) ? panel * static_cast<std::size_t>(quant_groups(k)) : 0) {}
    void clear() { rows_ = {}, quantized_ = {}; }
    void set(std::int64_t o, QuantizedRow row) { quantized_[static_cast<std::size_t>(o)] = row; }
    void set(std::int64_t o, const ReadRow& read, std::int64_t r) {
      const auto i = static_cast<std::size_t>(o), k = static_cast<std::size_t>(k_);
      const std::span<float> row(floats_.data() + i * k, k);
      read(r, row);
      rows_[i] = row.data();
      if (!is_quantized(type_)) return;
      const auto n = static_cast<std::size_t>(value_bytes_), groups = static_cast<std::size_t>(quant_groups(k_));
      const std::span values(values_.data() + i * n, n);
      const std::span scales(scales_.data() + i * groups, groups);
      quantize_row(type_, row, values, scales);
      quantized_[i] = {.values = values.data(), .scales = scales.data()};
    }
    void pack(std::byte* out) const {
      is_quantized(type_) ? pack_panel(type_, quantized_, k_, out) : pack_panel(type_, rows_, k_, out);
    }

   private:
    DType type_;
    std::int64_t k_, value_bytes_;
    std::vector<float> floats_;
    std::vector<std::byte> values_;
    std::vector<bf16> scales_;
    std::array<const float*, panel> rows_{};
    std::array<QuantizedRow, panel> quantized_{};
  };

  Model& model_;
  const TensorSource& source_;
  std::map<std::string, TensorSpec> tensors_;
};

void require_memory(const Spec& spec, DType type) {
  const std::int64_t wanted = packed_bytes(spec, type), available = available_memory();
  if (wanted > available)
    throw InputError(
        fmt::format("the model's weights take {:.2f} GB as {}, the machine has {:.2f} GB of memory left; "
                    "use a smaller --dtype",
                    static_cast<double>(wanted) * 1e-9, to_string(type), static_cast<double>(available) * 1e-9));
}

void fill(Model& model, const TensorSource& source, const Precision& precision, DType stored) {
  model.dtype = precision.weights.value_or(stored);
  model.kv = precision.kv.value_or(model.dtype == DType::f32 ? DType::f32 : DType::bf16);
  require_memory(model.spec, model.dtype);
  Loader load(model, source);
  model.embed = load.embedding(names::embed);
  if (model.spec.decoder_embedding) model.decoder_embed = load.embedding(names::decoder_embed);
  for (std::int64_t l = 1; l <= model.n_levels(); ++l) model.levels.push_back(load.level(l));
  if (model.spec.trunk)
    model.trunk = load.stack(names::trunk(), *model.spec.trunk);
  else if (model.spec.learned_start)
    model.start = load.vector(names::start);
  else
    model.start.assign(static_cast<std::size_t>(model.spec.width(model.n_levels())), 0.0f);
  model.lm_head = load.matrix(model.spec.tie_embeddings ? names::embed : names::lm_head);
}

// A row of an embedding as a matrix of `dtype` holds it.
void look_up(const MatrixView& table, DType dtype, std::int64_t token, std::span<float> out) {
  table.read_row(token, out);
  if (table.dtype == dtype || table.is_quantized()) return;
  if (dtype == DType::bf16) {
    for (float& x : out) x = to_float(to_bf16(x));
  } else if (is_quantized(dtype)) {
    std::vector<std::byte> values(static_cast<std::size_t>(quantized_row_bytes(dtype, std::ssize(out))));
    std::vector<bf16> scales(static_cast<std::size_t>(quant_groups(std::ssize(out))));
    quantize_row(dtype, out, values, scales);
    dequantize_row(dtype, {.values = values.data(), .scales = scales.data()}, out);
  }
}

}  // namespace

void Model::embedding(std::int64_t token, std::span<float> out) const { look_up(embed, dtype, token, out); }

void Model::decoder_embedding(std::int64_t token, std::span<float> out) const {
  look_up(decoder_embed, dtype, token, out);
}

Model load_model(const std::filesystem::path& path, const Precision& precision) {
  const auto folder = std::make_shared<const ModelFolder>(open_model_folder(path));
  const DType stored = folder->dtype;
  if (precision.weights && is_quantized(*precision.weights) && is_quantized(stored) && *precision.weights != stored)
    throw InputError(fmt::format("{}: holds {} weights, which cannot become {}; quantize the original model instead",
                                 path.string(), to_string(stored), to_string(*precision.weights)));
  Model model;
  model.spec = folder->spec;
  model.tokenizer = folder->tokenizer;
  model.folder = folder;
  fill(model, FolderSource(*folder), precision, stored);
  return model;
}

Model random_model(const Spec& spec, const Precision& precision, std::uint64_t seed) {
  Model model;
  model.spec = spec;
  fill(model, UniformSource(seed), precision, DType::bf16);
  return model;
}

std::int64_t packed_bytes(const Spec& spec, DType type) {
  std::int64_t bytes = 0;
  for (const TensorSpec& tensor : tensors(spec))
    if (tensor.shape.size() == 2 && tensor.name != names::decoder_embed &&
        (tensor.name != names::embed || spec.tie_embeddings))
      bytes += (tensor.shape[0] + panel_outputs - 1) / panel_outputs * panel_bytes(type, tensor.shape[1]);
  return bytes;
}

}  // namespace photon
