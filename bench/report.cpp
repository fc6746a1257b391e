#include "bench/report.h"

#include <fmt/format.h>

#include <functional>

#include "base/table.h"
#include "base/threads.h"
#include "base/version.h"
#include "engine/profile.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

using nlohmann::ordered_json;
using Align = TextTable::Align;

bool same_work(const BenchResult& a, const BenchResult& b) {
  const BenchCase &x = a.what, &y = b.what;
  return a.dtype == b.dtype && a.kv == b.kv && x.kind == y.kind && x.threads == y.threads && x.label == y.label &&
         x.context_label == y.context_label &&
         (!x.label.empty() || (x.workload.tokens == y.workload.tokens && x.workload.streams == y.workload.streams));
}

std::string times(std::optional<double> ratio) { return ratio ? short_number(*ratio) + "x" : "-"; }

ordered_json or_null(std::optional<double> value) { return value ? ordered_json(*value) : ordered_json(nullptr); }

}  // namespace

std::optional<VanillaRatio> ratio_to_vanilla(std::span<const BenchResult> results, const BenchResult& result) {
  const BenchResult* vanilla = nullptr;
  for (const BenchResult& other : results) {
    if (!other.is_vanilla || !same_work(result, other)) continue;
    if (vanilla != nullptr) return std::nullopt;
    vanilla = &other;
  }
  if (vanilla == nullptr) return std::nullopt;
  VanillaRatio ratio{.tokens_per_s = result.tokens_per_s.median / vanilla->tokens_per_s.median};
  if (result.tpm() && vanilla->tpm()) ratio.tpm = *result.tpm() / *vanilla->tpm();
  if (result.tpm_alone() && vanilla->tpm_alone()) ratio.tpm_alone = *result.tpm_alone() / *vanilla->tpm_alone();
  return ratio;
}

std::string to_table(std::span<const BenchResult> results) {
  if (results.empty()) return {};
  TextTable table;
  using Cell = std::function<std::string(const BenchResult&)>;
  const auto add = [&](const char* header, const Cell& cell, bool factor_out = false, Align align = Align::right) {
    TextTable::Column column{.header = header, .align = align, .factor_out = factor_out};
    for (const BenchResult& r : results) column.cells.push_back(cell(r));
    table.add(std::move(column));
  };
  const auto whole = [](std::int64_t n) { return fmt::format("{}", n); };
  const bool decodes = results.front().what.kind == BenchCase::Kind::decode;
  const bool of_paper = !results.front().what.label.empty();

  add(
      "model", [](const auto& r) { return r.model; }, true, Align::left);
  add(
      "protocol", [](const auto& r) { return std::string(to_string(r.what.workload.protocol)); }, true, Align::left);
  add(
      "dtype", [](const auto& r) { return std::string(to_string(r.dtype)); }, true, Align::left);
  add(
      "kv", [](const auto& r) { return std::string(to_string(r.kv)); }, true, Align::left);
  add(
      "threads", [&](const auto& r) { return whole(r.what.threads); }, true);
  if (of_paper)
    add(
        "workload", [](const auto& r) { return r.what.label; }, true);
  else
    add(
        "context", [&](const auto& r) { return whole(r.what.context_label); }, true);
  add(
      "streams", [&](const auto& r) { return whole(r.what.workload.streams); }, true);
  add(
      "tokens", [&](const auto& r) { return whole(r.what.workload.tokens); }, true);
  if (decodes)
    add(
        "phases", [](const auto& r) { return std::string(to_string(r.what.workload.phases)); }, true);
  add("tokens/s", [](const auto& r) { return short_number(r.tokens_per_s.median); });
  add("min-max",
      [](const auto& r) { return short_number(r.tokens_per_s.min) + "-" + short_number(r.tokens_per_s.max); });
  add("vs vanilla", [&](const auto& r) {
    const auto ratio = ratio_to_vanilla(results, r);
    return times(ratio ? std::optional(ratio->tokens_per_s) : std::nullopt);
  });
  if (decodes) {
    add("KV GiB", [](const auto& r) { return fmt::format("{:.3g}", static_cast<double>(r.kv_bytes) / (1 << 30)); });
    add("TPM", [](const auto& r) { return r.tpm() ? short_number(*r.tpm()) : "-"; });
    add("TPM vs vanilla", [&](const auto& r) {
      const auto ratio = ratio_to_vanilla(results, r);
      return times(ratio ? ratio->tpm : std::nullopt);
    });
  }
  add("KV MB/token", [](const auto& r) { return fmt::format("{:.3g}", r.kv_bytes_read_per_token * 1e-6); });
  add("weight MB/token", [](const auto& r) { return fmt::format("{:.3g}", r.weight_bytes_read_per_token * 1e-6); });
  add("memory used",
      [](const auto& r) { return fmt::format("{:.0f}% of {:.0f} GB/s", 100 * r.memory_share, r.ceiling_gb_s); });
  add("compute used",
      [](const auto& r) { return fmt::format("{:.0f}% of {:.0f} GOP/s", 100 * r.compute_share, r.ceiling_gop_s); });
  add("bound by", [](const auto& r) { return r.memory_binds() ? "memory" : "compute"; });
  for (std::size_t part = 0; part < results.front().profile.size(); ++part)
    add((std::string(Profile::names[part]) + " %").c_str(),
        [&](const auto& r) { return fmt::format("{:.0f}", 100 * r.profile[part]); });
  return table.text();
}

ordered_json machine_json() { return {{"isa", kernels().name}, {"cpu", cpu_model()}, {"commit", commit()}}; }

ordered_json to_json(std::span<const BenchResult> results, const BenchOptions& options) {
  ordered_json array = ordered_json::array();
  for (const BenchResult& r : results) {
    const Workload& w = r.what.workload;
    const auto ratio = ratio_to_vanilla(results, r);
    ordered_json row{
        {"benchmark", r.what.kind == BenchCase::Kind::decode ? "decode" : "prefill"},
        {"model", r.model},
        {"protocol", to_string(w.protocol)},
        {"dtype", to_string(r.dtype)},
        {"kv_dtype", to_string(r.kv)},
        {"threads", r.what.threads},
        {"streams", w.streams},
        {"context", r.what.context_label},
        {"tokens", w.tokens},
        {"phases", to_string(w.phases)},
        {"tokens_per_s", r.tokens_per_s.median},
        {"tokens_per_s_min", r.tokens_per_s.min},
        {"tokens_per_s_max", r.tokens_per_s.max},
        {"tokens_per_s_vs_vanilla", or_null(ratio ? std::optional(ratio->tokens_per_s) : std::nullopt)},
        {"ms_per_token", 1e3 / r.tokens_per_s.median},
        {"ceiling_gb_s", r.ceiling_gb_s},
        {"memory_share", r.memory_share},
        {"ceiling_gop_s", r.ceiling_gop_s},
        {"compute_share", r.compute_share},
        {"ceiling_share", r.ceiling_share()},
        {"bound_by", r.memory_binds() ? "memory" : "compute"},
        {"kv_bytes", r.kv_bytes},
        {"kv_bytes_read_per_token", r.kv_bytes_read_per_token},
        {"kv_bytes_written_per_token", r.kv_bytes_written_per_token},
        {"weight_bytes_read_per_token", r.weight_bytes_read_per_token},
        {"tpm", or_null(r.tpm())},
        {"tpm_vs_vanilla", or_null(ratio ? ratio->tpm : std::nullopt)},
        {"logits_hash", r.logits_hash},
        {"repeats", options.repeats},
        {"seed", options.seed},
    };
    if (!r.what.label.empty()) {
      row["workload"] = r.what.label;
      row["sampled_contexts"] = r.what.contexts;
      row["kv_bytes_alone"] = r.what.kv_bytes_alone;
      row["tpm_alone"] = or_null(r.tpm_alone());
      row["tpm_alone_vs_vanilla"] = or_null(ratio ? ratio->tpm_alone : std::nullopt);
    }
    for (std::size_t part = 0; part < r.profile.size(); ++part) row["profile"][Profile::names[part]] = r.profile[part];
    row.update(machine_json());
    array.push_back(std::move(row));
  }
  return array;
}

}  // namespace photon
