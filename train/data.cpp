// Mixture and validation windows over memory-mapped shards; the guards that run before the first step.
#include "train/data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"

namespace photon {

TrainingData open_data(const Recipe& recipe) {
  std::vector<std::string> problems;
  std::string tokenizer_hash, tokenizer_owner = recipe.data.tokenizer.string();
  if (!recipe.data.tokenizer.empty()) try {
      tokenizer_hash = sha256_file(recipe.data.tokenizer);
    } catch (const Error& e) {
      problems.push_back(e.what());
    }

  const auto open = [&](const std::filesystem::path& path) -> std::optional<Shard> {
    try {
      Shard shard(path);
      if (shard.vocab_size() != recipe.model.vocab_size)
        problems.push_back(fmt::format("{}: made with a vocabulary of {}, but the model's vocab_size is {}",
                                       path.string(), shard.vocab_size(), recipe.model.vocab_size));
      if (shard.size() < recipe.batch.tokens)
        problems.push_back(fmt::format("{}: {} tokens, shorter than a window of batch.tokens = {}", path.string(),
                                       shard.size(), recipe.batch.tokens));
      const std::string& hash = shard.tokenizer_hash();
      if (tokenizer_hash.empty()) tokenizer_hash = hash, tokenizer_owner = path.string();
      if (hash.empty() && !tokenizer_hash.empty())
        problems.push_back(fmt::format("{}: does not say which tokenizer it was made with; {} is of {:.12}…",
                                       path.string(), tokenizer_owner, tokenizer_hash));
      else if (hash != tokenizer_hash)
        problems.push_back(
            fmt::format("{}: made with the tokenizer {:.12}…, but {} is of {:.12}…; make the shard again",
                        path.string(), hash, tokenizer_owner, tokenizer_hash));
      return shard;
    } catch (const Error& e) {
      problems.push_back(e.what());
      return std::nullopt;
    }
  };
  TrainingData data;
  for (const TrainSource& source : recipe.data.train)
    if (auto shard = open(source.path)) data.train.push_back(*std::move(shard));
  for (const ValidSource& source : recipe.data.valid)
    if (auto shard = open(source.path)) data.valid.push_back({source.name, *std::move(shard)});
  for (const ValidShard& valid : data.valid)
    for (const Shard& train : data.train)
      if (valid.shard.checksum() == train.checksum())
        problems.push_back(
            fmt::format("{}: holds the same tokens as {}, which is trained on; validate on held-out text",
                        valid.shard.path().string(), train.path().string()));
  if (!problems.empty()) throw InputError(fmt::format("{}", fmt::join(problems, "\n")));
  return data;
}

Mixture::Mixture(const std::vector<Shard>& shards, const Recipe& recipe)
    : seed_(static_cast<std::uint64_t>(recipe.run.seed)), window_tokens_(recipe.batch.tokens) {
  double total = 0;
  for (const TrainSource& source : recipe.data.train) total += source.weight;
  for (std::size_t i = 0; i < shards.size(); ++i)
    sources_.push_back({&shards[i], recipe.data.train[i].weight / total, 0, {}});
  position_.sources.resize(shards.size());
  for (std::size_t i = 0; i < shards.size(); ++i) start_epoch(i);
}

// Lays out the pass position_.sources[source].epoch.
void Mixture::start_epoch(std::size_t source) {
  Source& s = sources_[source];
  const auto epoch = static_cast<std::uint64_t>(position_.sources[source].epoch);
  Random random(seed_, (static_cast<std::uint64_t>(source) << 40) + epoch);
  s.phase = random.below(std::min(window_tokens_, s.shard->size() - window_tokens_ + 1));
  s.windows.resize(static_cast<std::size_t>((s.shard->size() - s.phase) / window_tokens_));
  std::iota(s.windows.begin(), s.windows.end(), 0);
  for (std::size_t i = s.windows.size(); i > 1; --i)
    std::swap(s.windows[i - 1], s.windows[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
}

// The source whose windows so far are fewest beside its share; the first of equals.
std::size_t Mixture::most_behind() const {
  std::int64_t all = 1;
  for (const auto& source : position_.sources) all += source.total;
  const auto deficit = [&](std::size_t i) {
    return sources_[i].share * static_cast<double>(all) - static_cast<double>(position_.sources[i].total);
  };
  std::size_t best = 0;
  for (std::size_t i = 1; i < sources_.size(); ++i)
    if (deficit(i) > deficit(best)) best = i;
  return best;
}

torch::Tensor Mixture::next(std::int64_t sequences) {
  auto batch = torch::empty({sequences, window_tokens_}, torch::kInt64);
  auto* row = batch.data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < sequences; ++b, row += window_tokens_) {
    const std::size_t source = most_behind();
    const Source& s = sources_[source];
    auto& [epoch, taken, total] = position_.sources[source];
    const std::int64_t window = s.windows[static_cast<std::size_t>(taken)];
    s.shard->copy(s.phase + window * window_tokens_, {row, static_cast<std::size_t>(window_tokens_)});
    ++taken, ++total;
    if (taken == std::ssize(s.windows)) {
      ++epoch, taken = 0;
      start_epoch(source);
    }
  }
  return batch;
}

void Mixture::seek(const DataPosition& position) {
  position_ = position;
  for (std::size_t i = 0; i < sources_.size(); ++i) start_epoch(i);
}

torch::Tensor validation_windows(const Shard& shard, std::int64_t window_tokens, std::int64_t max_tokens) {
  const std::int64_t available = shard.size() / window_tokens;
  const std::int64_t used = std::clamp<std::int64_t>(max_tokens / window_tokens, 1, available);
  auto windows = torch::empty({used, window_tokens}, torch::kInt64);
  for (std::int64_t i = 0; i < used; ++i)
    shard.copy(i * available / used * window_tokens,
               {windows.data_ptr<std::int64_t>() + i * window_tokens, static_cast<std::size_t>(window_tokens)});
  return windows;
}

}  // namespace photon
