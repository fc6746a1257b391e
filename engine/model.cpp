#include "engine/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "base/error.h"
#include "kernels/kernels.h"
#include "kernels/matmul.h"
#include "spec/tensor_names.h"
#include "weights/tensor_source.h"

namespace photon {
namespace {

constexpr auto panel = static_cast<std::size_t>(panel_outputs);

// What a matrix of `dtype` would hold.
void round_as(DType dtype, std::span<float> row) {
  if (dtype == DType::bf16) {
    for (float& x : row) x = to_float(to_bf16(x));
  } else if (is_quantized(dtype)) {
    std::vector<std::byte> values(static_cast<std::size_t>(quantized_row_bytes(dtype, std::ssize(row))));
    std::vector<bf16> scales(static_cast<std::size_t>(quant_groups(std::ssize(row))));
    quantize_row(dtype, row, values, scales);
    dequantize_row(dtype, {.values = values.data(), .scales = scales.data()}, row);
  }
}

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
  /// Embeddings first: the tables of text are made of them.
  std::vector<MemoryWeights> memories() {
    std::vector<MemoryWeights> list;
    for (const MemorySpec& spec : model_.spec.token_stack().memory) {
      const names::Memory name(model_.spec, spec.kind);
      MemoryWeights memory{.spec = spec, .offset = vector(name.offset), .rates = optional_vector(name.recency)};
      for (float& rate : memory.rates) rate = std::log1p(std::exp(rate));  // softplus
      if (spec.kind == MemorySpec::Kind::units) {
        memory.norm = vector(name.norm);
        memory.kv = stacked({name.k, name.v});
      } else {
        memory.value_type = model_.dtype == DType::f32 ? DType::f32 : DType::bf16;
        fill_tables(name, memory);
      }
      list.push_back(std::move(memory));
    }
    return list;
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

  // A matrix as the model holds it, in float32 for what is computed at load.
  PackedWeight held(const std::string& name, Arena& arena) const {
    const TensorSpec& tensor = tensors_.at(name);
    const ReadRow read = source_.rows(tensor);
    const bool rounded = source_.stored(tensor) && source_.stored(tensor)->dtype == model_.dtype;
    const Part as_held{row_count(tensor), column_count(tensor),
                       [&, rounded](std::int64_t r, std::span<float> out) {
                         read(r, out);
                         if (!rounded) round_as(model_.dtype, out);
                       },
                       std::nullopt};
    std::vector<std::pair<const Part*, std::int64_t>> rows;
    for (std::int64_t r = 0; r < as_held.rows; ++r) rows.emplace_back(&as_held, r);
    return pack(rows, as_held.cols, DType::f32, arena);
  }

  // Keys and values of every token: T_o = W_k^o RMSNorm(E), T_v = W_v RMSNorm(E).
  void fill_tables(const names::Memory& name, MemoryWeights& memory) {
    const Spec& spec = model_.spec;
    const std::int64_t V = spec.vocab_size, E = spec.token_width(), h = spec.token_stack().head_dim;
    const std::int64_t places = memory.spec.context * memory.spec.n_kv_heads;
    Arena temporary;
    const PackedWeight k = held(name.k, temporary), v = held(name.v, temporary);
    const std::vector<float> norm = vector(name.norm);
    Matrix<float> keys, values, tokens;
    keys.resize(V, k.outputs), values.resize(V, v.outputs);
    Inputs normed;
    constexpr std::int64_t at_once = 256;
    for (std::int64_t first = 0; first < V; first += at_once) {
      const std::int64_t n = std::min(at_once, V - first);
      tokens.resize(n, E);
      for (std::int64_t i = 0; i < n; ++i)
        spec.decoder_embedding ? model_.decoder_embedding(first + i, tokens.row(i))
                               : model_.embedding(first + i, tokens.row(i));
      normed.assign_normed(tokens, norm, static_cast<float>(spec.norm_eps), InputForm::f32);
      matmul(normed.view(), k, keys.view().slice(first, n));
      matmul(normed.view(), v, values.view().slice(first, n));
    }
    const auto packed = [&](std::int64_t column) {  // [V, h]
      PackedWeight w{.type = memory.value_type, .outputs = V, .k = h};
      std::byte* const panels = model_.memory.allocate(w.n_panels() * panel_bytes(w.type, h));
      for (std::int64_t p = 0; p < w.n_panels(); ++p) {
        std::array<const float*, panel> rows{};
        for (std::int64_t o = 0; o < panel_outputs && p * panel_outputs + o < V; ++o)
          rows[static_cast<std::size_t>(o)] = keys.row(p * panel_outputs + o).data() + column;
        pack_panel(w.type, rows, h, panels + p * panel_bytes(w.type, h));
      }
      w.panels = panels;
      return w;
    };
    for (std::int64_t place = 0; place < places; ++place) memory.keys.push_back(packed(place * h));
    const std::int64_t row_bytes = h * (memory.value_type == DType::f32 ? 4 : 2);
    for (std::int64_t head = 0; head < memory.spec.n_kv_heads; ++head) {
      std::byte* const table = model_.memory.allocate(V * row_bytes);
      for (std::int64_t id = 0; id < V; ++id) {
        const std::span<const float> row = std::as_const(values).row(id).subspan(head * h, h);
        if (memory.value_type == DType::f32)
          std::memcpy(table + id * row_bytes, row.data(), row_bytes);
        else
          kernels().to_bf16(row, {reinterpret_cast<bf16*>(table + id * row_bytes), row.size()});
      }
      memory.values.push_back(table);
    }
  }

  PackedWeight pack(const std::vector<std::pair<const Part*, std::int64_t>>& rows, std::int64_t k) {
    return pack(rows, k, model_.dtype, model_.memory);
  }
  // rows: of which part, and which of its rows; no part: zeros.
  PackedWeight pack(const std::vector<std::pair<const Part*, std::int64_t>>& rows, std::int64_t k, DType type,
                    Arena& arena) const {
    const std::int64_t outputs = std::ssize(rows);
    PackedWeight w{.type = type, .outputs = outputs, .k = k};
    const std::int64_t bytes = panel_bytes(w.type, k), n_panels = w.n_panels();
    std::byte* const panels = arena.allocate(n_panels * bytes);
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
  if (!model.spec.trunk) model.levels.front().decoder.memory = load.memories();
  if (model.spec.trunk)
    model.trunk = load.stack(names::trunk(), *model.spec.trunk), model.trunk->memory = load.memories();
  else if (model.spec.learned_start)
    model.start = load.vector(names::start);
  else
    model.start.assign(static_cast<std::size_t>(model.spec.width(model.n_levels())), 0.0f);
  model.lm_head = load.matrix(model.spec.tie_embeddings ? names::embed : names::lm_head);
}

// A row of an embedding as a matrix of `dtype` holds it.
void look_up(const MatrixView& table, DType dtype, std::int64_t token, std::span<float> out) {
  table.read_row(token, out);
  if (table.dtype != dtype && !table.is_quantized()) round_as(dtype, out);
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
  const auto panels = [](std::int64_t outputs, std::int64_t k, DType held) {
    return (outputs + panel_outputs - 1) / panel_outputs * panel_bytes(held, k);
  };
  for (const TensorSpec& tensor : tensors(spec))
    if (tensor.shape.size() == 2 && tensor.name != names::decoder_embed &&
        (tensor.name != names::embed || spec.tie_embeddings))
      bytes += panels(tensor.shape[0], tensor.shape[1], type);
  for (const MemorySpec& memory : spec.token_stack().memory)
    if (memory.kind == MemorySpec::Kind::text)  // tables of keys, and of values in about the room of a place's keys
      bytes += (memory.context + 1) * memory.n_kv_heads *
               panels(spec.vocab_size, spec.token_stack().head_dim, type == DType::f32 ? type : DType::bf16);
  return bytes;
}

}  // namespace photon
