#include "bench/ceilings.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/table.h"
#include "bench/report.h"
#include "kernels/kernels.h"

namespace photon {

std::vector<Ceiling> measure_ceilings(const std::vector<std::int64_t>& thread_counts, std::int64_t repeats) {
  constexpr std::int64_t memory = std::int64_t{512} << 20, last_level = 16 << 20, second_level = 512 << 10;
  struct Measure {
    const char *name, *unit;
    std::int64_t bytes, bytes_a_thread;
    Arithmetic arithmetic;
  };
  constexpr Measure measures[] = {{"DRAM read", "GB/s", memory, 0, {}},
                                  {"L3 read", "GB/s", last_level, 0, {}},
                                  {"L2 read", "GB/s", 0, second_level, {}},
                                  {"fp32 FMA", "GFLOP/s", 0, 0, Arithmetic::f32},
                                  {"bf16 dot", "GFLOP/s", 0, 0, Arithmetic::bf16},
                                  {"int8 dot", "GOP/s", 0, 0, Arithmetic::int8}};
  const std::int64_t threads_before = threads();
  set_threads(std::ranges::max(thread_counts));
  const ReadProbe probe(memory);
  std::vector<Ceiling> ceilings;
  for (const std::int64_t n : thread_counts)
    for (const Measure& m : measures)
      ceilings.push_back({.name = m.name, .unit = m.unit, .threads = n, .bytes = m.bytes + n * m.bytes_a_thread});
  std::vector<std::vector<double>> values(ceilings.size());
  for (std::int64_t round = 0; round < repeats; ++round)
    for (std::size_t i = 0; i < ceilings.size(); ++i) {
      set_threads(ceilings[i].threads);
      values[i].push_back(ceilings[i].bytes > 0 ? probe.gb_s(ceilings[i].bytes)
                                                : measure_peak_gop_s(measures[i % std::size(measures)].arithmetic));
    }
  set_threads(threads_before);
  for (std::size_t i = 0; i < ceilings.size(); ++i) ceilings[i].value = spread_of(values[i]);
  return ceilings;
}

std::string to_table(std::span<const Ceiling> ceilings) {
  TextTable table;
  const auto add = [&](const char* header, TextTable::Align align, const auto& cell) {
    TextTable::Column column{.header = header, .align = align};
    for (const Ceiling& c : ceilings) column.cells.push_back(cell(c));
    table.add(std::move(column));
  };
  using Align = TextTable::Align;
  add("ceiling", Align::left, [](const Ceiling& c) { return c.name; });
  add("bytes read", Align::right, [](const Ceiling& c) {
    return c.bytes > 0 ? fmt::format("{:.0f} KiB", static_cast<double>(c.bytes) / 1024) : "";
  });
  add("threads", Align::right, [](const Ceiling& c) { return fmt::format("{}", c.threads); });
  add("median", Align::right, [](const Ceiling& c) { return short_number(c.value.median); });
  add("min-max", Align::right,
      [](const Ceiling& c) { return short_number(c.value.min) + "-" + short_number(c.value.max); });
  add("unit", Align::left, [](const Ceiling& c) { return c.unit; });
  return table.text();
}

nlohmann::ordered_json to_json(std::span<const Ceiling> ceilings, std::int64_t repeats) {
  auto array = nlohmann::ordered_json::array();
  for (const Ceiling& c : ceilings) {
    nlohmann::ordered_json row{{"benchmark", "ceiling"},   {"ceiling", c.name},        {"unit", c.unit},
                               {"threads", c.threads},     {"bytes", c.bytes},         {"value", c.value.median},
                               {"value_min", c.value.min}, {"value_max", c.value.max}, {"repeats", repeats}};
    row.update(machine_json());
    array.push_back(std::move(row));
  }
  return array;
}

}  // namespace photon
