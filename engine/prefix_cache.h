// States of texts that were consumed before, for prompts that begin with the same tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"

namespace photon {

/// Keeps sequences under the tokens that they have consumed, compared token by token.  A fork of a state computes what
/// its text would: where a state stands decides how much of a prompt it saves, never what comes out.  For one thread.
class PrefixCache {
 public:
  using Text = std::shared_ptr<const std::vector<std::int32_t>>;  // shared by the states of its beginnings

  /// More states than this are not kept: each is compared with every prompt, which must cost nothing beside the prompt.
  static constexpr std::size_t max_states = 2048;

  struct Match {
    const Sequence* state = nullptr;  // the longest that is a beginning of the prompt; to be forked; null: none
    std::int64_t n_tokens = 0;        // that it has consumed
    std::int64_t n_common = 0;  // tokens that the prompt shares with some text, whether a state stands there or not
  };
  /// Looks a prompt up; a state that is found counts as used.
  Match find(std::span<const std::int32_t> prompt);

  /// Keeps a state that has consumed the first state.n_tokens tokens of `text`, in place of one of the same tokens.
  void keep(Text text, Sequence state);
  /// Is there such a state?  It counts as used.
  bool touch(std::span<const std::int32_t> tokens);

  /// Drops the state that was not used for longest; false: there is none.
  bool drop_oldest();
  bool empty() const { return states_.empty(); }
  std::int64_t n_states() const { return static_cast<std::int64_t>(states_.size()); }

  /// KV bytes of the pages that states hold, each once.
  std::int64_t bytes() const { return bytes_; }
  /// Of these, what would be free without the cache: pages that nobody else holds.
  std::int64_t bytes_alone() const;

 private:
  struct State {
    Text text;
    Sequence sequence;

    std::span<const std::int32_t> tokens() const { return std::span(*text).first(sequence.n_tokens); }
    // The next token's logits were asked for, so that it must consume a token more before any can be asked for again.
    bool predicted() const { return sequence.n_predicted > sequence.n_tokens; }
  };
  struct Held {
    std::weak_ptr<KvPool::Page> page;
    std::int64_t times = 0;
  };
  using States = std::list<State>;

  void use(States::iterator state) { states_.splice(states_.begin(), states_, state); }
  void drop(States::iterator state);

  States states_;  // the last used first
  std::unordered_map<const KvPool::Page*, Held> pages_;
  std::int64_t bytes_ = 0;
};

}  // namespace photon
