// hiergen, the exact protocol: tokens are consumed bottom-up, and logits are those of the teacher-forced forward pass.
// docs/architecture.md §3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/hierarchy.h"

namespace photon {

/// Which logits are wanted of tokens that are given.  A token's logits are computed from the tokens before it; those
/// that were computed before are left out.
enum class Logits {
  none,            ///< no one's: encoders only
  next,            ///< of the token that will follow
  given,           ///< of each token given: the teacher-forced forward pass
  given_and_next,  ///< of both
};

/// Tokens that a sequence consumes; possibly none.
struct Extension {
  Sequence* sequence = nullptr;
  std::span<const std::int32_t> tokens{};
  Logits logits = Logits::none;
};

/// Hears of the logits [V] of the token at a position of batch[b]: in order within a sequence.  What it throws leaves
/// the call; the sequences of the batch cannot go on then.
using Visit = std::function<void(std::size_t b, std::int64_t position, std::span<const float> logits)>;

class Hiergen {
 public:
  explicit Hiergen(Hierarchy& hierarchy) : hierarchy_(hierarchy) {}

  /// The one forward call, Runner::forward().
  void forward(std::span<const Extension> batch, const Visit& visit);

 private:
  bool take_slices(std::span<const Extension> batch);
  void visit_logits(MatView<const float> x, const Visit& visit);

  struct Slice {  // what of an extension goes into one pass
    std::size_t b = 0;
    std::int64_t from = 0, to = 0;  // tokens whose logits are wanted
  };
  Hierarchy& hierarchy_;
  std::vector<std::int64_t> taken_;  // of each extension; -1: not even begun
  std::vector<Hierarchy::Given> given_;
  std::vector<Slice> slices_;
  std::vector<Hierarchy::Units> wanted_;
};

}  // namespace photon
