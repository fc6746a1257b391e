// A model that runs: it owns the weights, the memory of KV caches and all buffers, and has the one forward call that
// generating, scoring, serving and measuring are made of.
//
//   photon::Runner runner(photon::load_model("models/photon-stories"));
//   photon::Sequence sequence = runner.sequence();
//   const photon::Extension prompt{&sequence, tokens, photon::Logits::next};
//   runner.forward({&prompt, 1}, [](std::size_t, std::int64_t position, std::span<const float> logits) { … });
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "engine/hierarchy.h"
#include "engine/hiergen.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/recgen.h"
#include "engine/sequence.h"

namespace photon {

/// For one thread, which shares its work over threads().  Outlives its sequences.  A batch holds every sequence at most
/// once.  A sequence's results do not depend on what else is in its batches, nor on the pieces in which tokens come,
/// nor on the number of threads: bit for bit.
class Runner {
 public:
  explicit Runner(Model model);
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  const Model& model() const { return model_; }
  const Spec& spec() const { return model_.spec; }

  /// A sequence that has consumed nothing.
  /// @param spare_tokens  how many of its latest tokens Sequence::take_back() may take back
  Sequence sequence(std::int64_t spare_tokens = 0) { return Sequence(model_, pool_, spare_tokens); }
  KvPool& pool() { return pool_; }
  const KvPool& pool() const { return pool_; }

  /// hiergen: every sequence consumes its tokens, of any number, and the logits that are wanted are visited, as the
  /// teacher-forced forward pass computes them.  Bounded memory, whatever the number of tokens.
  void forward(std::span<const Extension> batch, const Visit& visit = {}) { hiergen_.forward(batch, visit); }

  /// recgen may begin where a whole number of top-level groups is consumed and the next token's logits were not asked
  /// for. `stream` decoders catch up with the past; the lower encoders' caches are given back.  Needs a level.
  void start_recgen(Sequence& sequence) { recgen_.start(sequence); }
  /// recgen: one top-level group, C_≤L tokens, of each sequence.  `choose` is asked within a chunk of tokens in order,
  /// the chunks of a group interleaved; or, `one_by_one`, chunk after chunk with the same logits.
  void recgen_group(std::span<Sequence* const> batch, const Choose& choose, bool one_by_one = false) {
    recgen_.group(batch, choose, one_by_one);
  }
  /// The logits that a protocol gives to every token of a batch, which is consumed; Extension::logits plays no part.
  /// recgen: the tokens are forced through recgen's own states; a sequence inside a top-level group finishes it with
  /// hiergen first, as generation does.  What would follow an incomplete last group is left out, and its sequence
  /// cannot go on.
  void score(Protocol protocol, std::span<const Extension> batch, const Visit& visit);

  /// Watches every unit that is made from now on; none for an empty function.
  void watch_units(std::function<void(const Unit&)> watch) { hierarchy_.watch_unit = std::move(watch); }
  /// What was done so far.
  const Work& work() const { return hierarchy_.ops().work; }
  /// Where the time goes; off until enabled.
  Profile& profile() { return hierarchy_.ops().profile; }

 private:
  void score_recgen(std::span<const Extension> batch, const Visit& visit);

  Model model_;
  KvPool pool_;
  Hierarchy hierarchy_{model_};
  Hiergen hiergen_{hierarchy_};
  Recgen recgen_{hierarchy_};
};

}  // namespace photon
