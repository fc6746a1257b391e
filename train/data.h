// Windows of tokens for training and validation: a weighted mixture of shards in an order that a few integers replay.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/shard.h"
#include "train/recipe.h"
#include "train/torch.h"

namespace photon {

struct ValidShard {
  std::string name;
  Shard shard;
};

/// Every shard of a recipe, opened and checked against the model, the tokenizer and each other.
struct TrainingData {
  std::vector<Shard> train;  // in the order of recipe.data.train
  std::vector<ValidShard> valid;
};
/// @throws InputError listing ALL problems: missing or damaged files, another vocabulary than the model's, another
/// tokenizer than data.tokenizer or than the other shards, a shard shorter than a window, and a validation shard that
/// is also trained on.
TrainingData open_data(const Recipe& recipe);

/// Where a mixture stands: all that decides which windows follow.
struct DataPosition {
  struct Source {
    std::int64_t epoch = 0;  // passes finished
    std::int64_t taken = 0;  // windows taken of the pass in progress
    std::int64_t total = 0;  // windows taken of all passes, which differ in length with their phase
    bool operator==(const Source&) const = default;
  };
  std::vector<Source> sources;
  bool operator==(const DataPosition&) const = default;
};

/// Endless disjoint windows.  In each pass over a shard the windows start at a random phase and come in a random order,
/// both functions of (seed, source, epoch); the next source is the one that is furthest behind its share.
/// Not thread-safe; borrows the shards.
class Mixture {
 public:
  Mixture(const std::vector<Shard>& shards, const Recipe& recipe);

  /// The next `sequences` windows, [B, T] int64.
  torch::Tensor next(std::int64_t sequences);

  const DataPosition& position() const { return position_; }
  void seek(const DataPosition& position);

 private:
  struct Source {
    const Shard* shard;
    double share;                       // weight / sum of weights
    std::int64_t phase = 0;             // first token of this pass's first window
    std::vector<std::int64_t> windows;  // of this pass, in the order of use
  };
  void start_epoch(std::size_t source);
  std::size_t most_behind() const;

  std::uint64_t seed_;
  std::int64_t window_tokens_;
  std::vector<Source> sources_;
  DataPosition position_;
};

/// Fixed windows for validation: up to max_tokens tokens as disjoint windows spread evenly over the shard, [N, T]
/// int64.
torch::Tensor validation_windows(const Shard& shard, std::int64_t window_tokens, std::int64_t max_tokens);

}  // namespace photon
