#include "bench/rounds_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "bench/report.h"

namespace photon {
namespace {

using nlohmann::ordered_json;

constexpr const char* format = "photon-bench-rounds";
constexpr int version = 1;

std::string hash_of(const Spec& spec) {
  const std::string text = to_json(spec);
  return sha256(std::as_bytes(std::span(text))).substr(0, 16);
}

// What a case is found again by.
ordered_json key_of(const BenchSource& source, const BenchCase& what) {
  const Workload& w = what.workload;
  return {{"benchmark", what.kind == BenchCase::Kind::decode ? "decode" : "prefill"},
          {"model", name_of(source)},
          {"spec", hash_of(source.spec)},
          {"protocol", to_string(w.protocol)},
          {"dtype", to_string(source.dtype)},
          {"kv_dtype", to_string(source.kv)},
          {"threads", what.threads},
          {"workload", what.label},
          {"streams", w.streams},
          {"tokens", w.tokens},
          {"phases", to_string(w.phases)},
          {"contexts", what.contexts}};
}

// The members of a round, by name: what is written, and read again.
template <class R, class Visit>
void each_member(R& round, const Visit& visit) {
  visit("tokens_per_s", round.tokens_per_s);
  visit("ceiling_gb_s", round.ceiling_gb_s);
  visit("memory_share", round.memory_share);
  visit("ceiling_gop_s", round.ceiling_gop_s);
  visit("compute_share", round.compute_share);
  visit("tokens", round.tokens);
  visit("kv_bytes_read", round.kv_bytes_read);
  visit("kv_bytes_written", round.kv_bytes_written);
  visit("weight_bytes_read", round.weight_bytes_read);
  visit("kv_bytes", round.kv_bytes);
  visit("logits_hash", round.logits_hash);
  visit("all_hashes", round.all_hashes);
  visit("profile", round.profile);
  visit("seconds", round.seconds);
}

ordered_json json_of(const Round& round) {
  ordered_json object;
  each_member(round, [&](const char* name, const auto& value) { object[name] = value; });
  return object;
}

Round round_of(const ordered_json& object) {
  Round round;
  each_member(round, [&]<class T>(const char* name, T& value) { value = object.at(name).get<T>(); });
  return round;
}

bool is_sound(const Round& r) {
  return std::isfinite(r.tokens_per_s) && r.tokens_per_s > 0 && std::isfinite(r.seconds) && r.seconds > 0 &&
         r.tokens > 0;
}

}  // namespace

RoundsFile::RoundsFile(std::filesystem::path path, std::uint64_t seed) : path_(std::move(path)) {
  origin_ = machine_json();
  origin_["seed"] = seed;
  if (std::filesystem::exists(path_)) read();
  write();
}

void RoundsFile::read() {
  const auto refuse = [&](const std::string& why) {
    throw InputError(fmt::format("{}: {}; name another file, or remove this one", path_.string(), why));
  };
  const std::string text = read_text(path_);
  ordered_json other;
  std::vector<std::string> differing;
  try {
    const ordered_json file = ordered_json::parse(text);
    if (file.at("format") != format) refuse("is no file of rounds");
    if (file.at("version") != version) refuse("has another version of this format");
    for (const auto& [key, value] : origin_.items())
      if (file.at("origin").at(key) != value)
        differing.push_back(fmt::format("{} {} where this is {}", key, file["origin"][key].dump(), value.dump()));
    for (const auto& cell : file.at("cells")) {
      Cell& read = cells_.emplace_back(Cell{.what = cell.at("case")});
      for (const auto& round : cell.at("rounds")) {
        read.rounds.push_back(round_of(round));
        if (!is_sound(read.rounds.back())) refuse("has a round without tokens or time");
      }
    }
  } catch (const nlohmann::json::exception& e) {
    refuse(fmt::format("is no file of rounds ({})", e.what()));
  }
  if (!differing.empty()) refuse(fmt::format("was measured with {}", fmt::join(differing, ", ")));
}

void RoundsFile::write() const {
  ordered_json cells = ordered_json::array();
  for (const Cell& cell : cells_) {
    ordered_json rounds = ordered_json::array();
    for (const Round& round : cell.rounds) rounds.push_back(json_of(round));
    cells.push_back({{"case", cell.what}, {"rounds", std::move(rounds)}});
  }
  const ordered_json file{{"format", format}, {"version", version}, {"origin", origin_}, {"cells", std::move(cells)}};
  write_atomically(path_, file.dump(1) + '\n');
}

std::vector<Round> RoundsFile::rounds(const BenchSource& source, const BenchCase& what, std::int64_t at_most) const {
  const auto cell = std::ranges::find(cells_, key_of(source, what), &Cell::what);
  if (cell == cells_.end()) return {};
  return {cell->rounds.begin(), cell->rounds.begin() + std::min(at_most, std::ssize(cell->rounds))};
}

void RoundsFile::keep(const BenchSource& source, const BenchCase& what, const Round& round) {
  ordered_json key = key_of(source, what);
  auto cell = std::ranges::find(cells_, key, &Cell::what);
  if (cell == cells_.end()) cell = cells_.insert(cells_.end(), Cell{.what = std::move(key)});
  cell->rounds.push_back(round);
  write();
}

}  // namespace photon
