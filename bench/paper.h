// What the paper measured, and our figures beside it: its tables of speed and memory (arXiv 2512.20687 v2, tables 1 to
// 3).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/plan.h"
#include "bench/report.h"

namespace photon {

/// One model and workload in the paper's tables: on one H200, trained weights.
struct PaperFigures {
  double tpm = 0;             // k_tokens_per_s / kv_gib
  double kv_gib = 0;          // of one sample, and with more in it than keys and values
  double k_tokens_per_s = 0;  // of a batch that its tables do not name
};
struct PaperRow {
  std::string_view size;   // "600m"
  std::string_view model;  // a config of configs/paper
  Protocol protocol = Protocol::hiergen;
  PaperFigures prefill_heavy{}, decode_heavy{};
};
inline constexpr PaperWorkload paper_prefill_heavy{2048, 128}, paper_decode_heavy{128, 2048};

std::span<const PaperRow> paper_rows();
std::vector<std::string> paper_sizes();                        ///< "600m", "900m", "1.2b"
std::vector<std::string> paper_models(std::string_view size);  ///< names of configs, the Transformer first

/// What the paper has in the place of a result, by its model's name, protocol and workload; nothing where it has none.
std::optional<PaperFigures> paper_figures(const BenchResult& result);
/// The same divided by the paper's Transformer of that size.  kv_gib: how many times less, the others: more.
std::optional<PaperFigures> paper_ratio(const BenchResult& result);

/// "PF 2048+128" and "DE 128+2048"; other workloads as they are.
std::string paper_workload_name(std::string_view label);
/// The results with the paper's figures beside them.
std::string to_paper_table(std::span<const BenchResult> results);
/// What to know before comparing the two.
std::string paper_caveats();
/// to_json() of the results with the member "paper" in each: its figures, or null.
nlohmann::ordered_json to_paper_json(std::span<const BenchResult> results, const BenchOptions& options);

}  // namespace photon
