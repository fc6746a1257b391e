#include "bench/paper.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/table.h"

namespace photon {
namespace {

using enum Protocol;
using nlohmann::ordered_json;

constexpr PaperRow rows[] = {
    {"600m", "vanilla-600m", hiergen, {3.24, .275, 0.89}, {7.35, .230, 1.69}},
    {"600m", "block-600m", hiergen, {562.73, .044, 24.76}, {1528.71, .031, 47.39}},
    {"600m", "photon-600m", hiergen, {1262.58, .031, 39.14}, {3062.17, .023, 70.43}},
    {"600m", "photon-600m", recgen, {2828.06, .031, 87.67}, {13642.50, .012, 163.71}},
    {"600m", "photon-600m-c2x2", hiergen, {175.45, .066, 11.58}, {418.30, .053, 22.17}},
    {"900m", "vanilla-900m", hiergen, {3.99, .298, 1.19}, {6.61, .354, 2.34}},
    {"900m", "block-900m", hiergen, {485.74, .054, 26.23}, {1386.05, .038, 52.67}},
    {"900m", "photon-900m", hiergen, {1141.62, .037, 42.24}, {2797.04, .027, 75.52}},
    {"1.2b", "vanilla-1.2b", hiergen, {1.21, .439, 0.53}, {2.56, .390, 1.00}},
    {"1.2b", "block-1.2b", hiergen, {205.00, .070, 14.35}, {540.20, .051, 27.55}},
    {"1.2b", "photon-1.2b", hiergen, {543.86, .044, 23.93}, {1216.67, .036, 43.80}},
};

std::string label_of(const PaperWorkload& w) { return fmt::format("{}+{}", w.prompt, w.generated); }

const PaperRow* find_row(std::string_view model, Protocol protocol) {
  const auto row =
      std::ranges::find_if(rows, [&](const PaperRow& r) { return r.model == model && r.protocol == protocol; });
  return row == std::end(rows) ? nullptr : row;
}

const PaperFigures* find(const PaperRow* row, std::string_view label) {
  if (row != nullptr && label == label_of(paper_prefill_heavy)) return &row->prefill_heavy;
  if (row != nullptr && label == label_of(paper_decode_heavy)) return &row->decode_heavy;
  return nullptr;
}

double gib(std::int64_t bytes) { return static_cast<double>(bytes) * 0x1p-30; }

template <class T, class Member>
std::string text_of(const std::optional<T>& figures, Member member, const char* unit = "") {
  return figures ? short_number((*figures).*member) + unit : "-";
}

}  // namespace

std::span<const PaperRow> paper_rows() { return rows; }

std::vector<std::string> paper_sizes() {
  std::vector<std::string> sizes;
  for (const PaperRow& row : rows)
    if (sizes.empty() || sizes.back() != row.size) sizes.emplace_back(row.size);
  return sizes;
}

std::vector<std::string> paper_models(std::string_view size) {
  std::vector<std::string> models;
  for (const PaperRow& row : rows)
    if (row.size == size && (models.empty() || models.back() != row.model)) models.emplace_back(row.model);
  return models;
}

std::optional<PaperFigures> paper_figures(const BenchResult& result) {
  const PaperFigures* found = find(find_row(result.model, result.what.workload.protocol), result.what.label);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

std::optional<PaperFigures> paper_ratio(const BenchResult& result) {
  const PaperRow* row = find_row(result.model, result.what.workload.protocol);
  const PaperFigures* own = find(row, result.what.label);
  if (own == nullptr) return std::nullopt;
  const PaperFigures* vanilla = find(find_row(paper_models(row->size).front(), hiergen), result.what.label);
  return PaperFigures{.tpm = own->tpm / vanilla->tpm,
                      .kv_gib = vanilla->kv_gib / own->kv_gib,
                      .k_tokens_per_s = own->k_tokens_per_s / vanilla->k_tokens_per_s};
}

std::string paper_workload_name(std::string_view label) {
  if (label == label_of(paper_prefill_heavy)) return fmt::format("PF {}", label);
  if (label == label_of(paper_decode_heavy)) return fmt::format("DE {}", label);
  return std::string(label);
}

std::string to_paper_table(std::span<const BenchResult> results) {
  if (results.empty()) return {};
  TextTable table;
  using Cell = std::function<std::string(const BenchResult&)>;
  const auto add = [&](const char* header, const Cell& cell, bool factor_out = false,
                       TextTable::Align align = TextTable::Align::right) {
    TextTable::Column column{.header = header, .align = align, .factor_out = factor_out};
    for (const BenchResult& r : results) column.cells.push_back(cell(r));
    table.add(std::move(column));
  };
  constexpr auto left = TextTable::Align::left;
  const auto ratio = [&](const BenchResult& r) { return ratio_to_vanilla(results, r); };
  const auto times = [](std::optional<double> value) { return value ? short_number(*value) + "x" : "-"; };

  add(
      "dtype", [](const auto& r) { return std::string(to_string(r.dtype)); }, true, left);
  add(
      "kv", [](const auto& r) { return std::string(to_string(r.kv)); }, true, left);
  add(
      "threads", [](const auto& r) { return std::to_string(r.what.threads); }, true);
  add(
      "workload", [](const auto& r) { return paper_workload_name(r.what.label); }, false, left);
  add(
      "model", [](const auto& r) { return r.model; }, false, left);
  add(
      "protocol", [](const auto& r) { return std::string(to_string(r.what.workload.protocol)); }, false, left);
  add("streams", [](const auto& r) { return std::to_string(r.what.workload.streams); });
  add("K tokens/s", [](const auto& r) { return short_number(r.tokens_per_s.median * 1e-3); });
  add("min-max", [](const auto& r) {
    return short_number(r.tokens_per_s.min * 1e-3) + "-" + short_number(r.tokens_per_s.max * 1e-3);
  });
  add("vs vanilla", [&](const auto& r) {
    const auto found = ratio(r);
    return times(found ? std::optional(found->tokens_per_s) : std::nullopt);
  });
  add("paper", [](const auto& r) { return text_of(paper_figures(r), &PaperFigures::k_tokens_per_s); });
  add("vs vanilla", [](const auto& r) { return text_of(paper_ratio(r), &PaperFigures::k_tokens_per_s, "x"); });
  add("KV GiB a sample", [](const auto& r) { return fmt::format("{:.3g}", gib(r.what.kv_bytes_alone)); });
  add("paper", [](const auto& r) { return text_of(paper_figures(r), &PaperFigures::kv_gib); });
  add("TPM", [](const auto& r) { return r.tpm_alone() ? short_number(*r.tpm_alone()) : "-"; });
  add("vs vanilla", [&](const auto& r) {
    const auto found = ratio(r);
    return times(found ? found->tpm_alone : std::nullopt);
  });
  add("paper", [](const auto& r) { return text_of(paper_figures(r), &PaperFigures::tpm); });
  add("vs vanilla", [](const auto& r) { return text_of(paper_ratio(r), &PaperFigures::tpm, "x"); });
  add("KV GiB of all", [](const auto& r) { return fmt::format("{:.3g}", gib(r.kv_bytes)); });
  add("TPM of all", [](const auto& r) { return r.tpm() ? short_number(*r.tpm()) : "-"; });
  add("vs vanilla", [&](const auto& r) {
    const auto found = ratio(r);
    return times(found ? found->tpm : std::nullopt);
  });
  return table.text();
}

std::string paper_caveats() {
  return "\"paper\": what arXiv 2512.20687 v2 reports of trained weights on one H200; ours are random weights on this "
         "CPU.\n"
         "Compare ratios, not rates, and with these in mind:\n"
         "  Its memory holds more than keys and values: 0.275 GiB for its 600M Transformer in PF, of which the keys "
         "and\n"
         "  values of 2,176 tokens, 106,496 B each, are 0.216 GiB.  Ours is keys and values alone.\n"
         "  Its TPM is K tokens/s over the GiB of ONE sample (0.89 / 0.275 = 3.24), and so is TPM here.  \"TPM of "
         "all\"\n"
         "  divides by the caches of all streams.\n"
         "  Its batch sizes are not in its tables; ours are the streams that a budget of KV cache admits, up to a "
         "cap.\n";
}

ordered_json to_paper_json(std::span<const BenchResult> results, const BenchOptions& options) {
  ordered_json array = to_json(results, options);
  const auto object = [](const std::optional<PaperFigures>& figures) -> ordered_json {
    if (!figures) return nullptr;
    return {{"k_tokens_per_s", figures->k_tokens_per_s}, {"kv_gib", figures->kv_gib}, {"tpm", figures->tpm}};
  };
  for (std::size_t i = 0; i < results.size(); ++i) {
    array[i]["paper"] = object(paper_figures(results[i]));
    array[i]["paper_vs_vanilla"] = object(paper_ratio(results[i]));
  }
  return array;
}

}  // namespace photon
