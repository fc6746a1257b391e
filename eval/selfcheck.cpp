#include "eval/selfcheck.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "eval/agreement.h"
#include "eval/compare.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

using Tokens = std::span<const std::int32_t>;
using Rows = std::vector<std::vector<float>>;  // logits of consecutive tokens

Tokens first(Tokens tokens, std::int64_t n) {
  return tokens.first(std::min(tokens.size(), static_cast<std::size_t>(std::max<std::int64_t>(0, n))));
}

std::string dtypes(const Model& model) {
  return fmt::format("{} weights, {} KV", to_string(model.dtype), to_string(model.kv));
}

Rows forward_logits(Runner& runner, Tokens tokens) {
  Sequence sequence = runner.sequence();
  Rows logits;
  const Extension given{.sequence = &sequence, .tokens = tokens, .logits = Logits::given};
  runner.forward({&given, 1}, [&](std::size_t, std::int64_t, std::span<const float> row) {
    logits.emplace_back(row.begin(), row.end());
  });
  return logits;
}

Sequence after(Runner& runner, Tokens tokens) {
  Sequence sequence = runner.sequence();
  const Extension prompt{.sequence = &sequence, .tokens = tokens};
  runner.forward({&prompt, 1});
  return sequence;
}

std::int32_t another(std::int32_t token, const Spec& spec) {
  return static_cast<std::int32_t>((token + 1) % spec.vocab_size);
}

class WithThreads {
 public:
  explicit WithThreads(std::int64_t n) : before_(threads()) { set_threads(n); }
  WithThreads(const WithThreads&) = delete;
  WithThreads& operator=(const WithThreads&) = delete;
  ~WithThreads() { set_threads(before_); }

 private:
  std::int64_t before_;
};

// Sequences in step after prompts of different lengths: hiergen steps, then for a model with levels a group of recgen.
class Together {
 public:
  Together(Runner& runner, Tokens tokens, std::span<const std::int64_t> prompts) : logits_(prompts.size()) {
    constexpr std::int64_t n_steps = 6;
    std::deque<Sequence> sequences, groups;
    for (const std::int64_t n : prompts) sequences.push_back(after(runner, first(tokens, n)));
    std::vector<Extension> batch;
    for (std::int64_t step = 0; step < n_steps; ++step) {
      batch.clear();
      for (Sequence& s : sequences) {
        const std::int32_t& token = tokens[static_cast<std::size_t>(s.n_tokens) % tokens.size()];
        batch.push_back({.sequence = &s, .tokens = {&token, 1}, .logits = Logits::next});
      }
      runner.forward(batch, [this](std::size_t b, std::int64_t, std::span<const float> row) { keep(b, row); });
    }
    if (runner.spec().n_levels() == 0) return;
    const std::int64_t group_tokens = runner.spec().group_tokens();
    std::vector<Sequence*> recgen;
    for (const std::int64_t n : prompts) {
      recgen.push_back(&groups.emplace_back(after(runner, first(tokens, n / group_tokens * group_tokens))));
      runner.start_recgen(*recgen.back());
    }
    runner.recgen_group(recgen, [&](std::size_t b, std::int64_t position, std::span<const float> row) {
      keep(b, row);
      return tokens[static_cast<std::size_t>(position) % tokens.size()];
    });
  }
  const Rows& logits(std::size_t b) const { return logits_[b]; }

 private:
  void keep(std::size_t b, std::span<const float> row) { logits_[b].emplace_back(row.begin(), row.end()); }

  std::vector<Rows> logits_;
};

}  // namespace

std::vector<Check> check_protocols(Engine& engine, Tokens tokens) {
  Agreement agreement(engine.runner());
  agreement.add({{std::vector<std::int32_t>(tokens.begin(), tokens.end())}}, /*n_given=*/1);
  std::vector<Check> checks;
  for (const ProtocolAgreement& p : agreement.result()) {
    const Comparison& c = p.tokens;
    if (p.protocol == Protocol::hiergen) {
      checks.push_back(
          {.name = "decoding = forward pass",
           .value = c.logit_difference_max,
           .tolerance = 0,
           .detail = fmt::format("max |Δlogit|; KL {:.3g}; {} tokens; {}", c.kl, c.n_tokens, dtypes(engine.model()))});
      continue;
    }
    checks.push_back({.name = "recgen beside it",
                      .value = c.kl,
                      .detail = fmt::format("nats of KL; top-1 {:.1f} %; loss {:+.3f} nats/token",
                                            100 * c.top1_agreement, c.model_nats - c.reference_nats)});
    for (const UnitCosine& units : p.units)
      checks.back().detail += fmt::format("; cos(X, X^) of level {}: {:.3f}", units.level, units.all.value());
  }
  return checks;
}

Check check_generation(Engine& engine, Tokens tokens) {
  constexpr std::int64_t n_tokens = 48;
  const Tokens prompt = first(tokens, std::ssize(tokens) * 2 / 3);
  const auto generated = engine
                             .generate({.prompt = {prompt.begin(), prompt.end()},
                                        .n_tokens = n_tokens,
                                        .sampler = {.temperature = 0},
                                        .ignore_eos = true})
                             .tokens();
  std::vector<std::int32_t> all(prompt.begin(), prompt.end());
  all.insert(all.end(), generated.begin(), generated.end());
  const Score score = engine.score(all);
  std::int64_t different = 0;
  for (std::size_t i = prompt.size(); i < all.size(); ++i) different += score.argmax[i] != all[i];
  return {.name = "greedy generation = forward pass",
          .value = static_cast<double>(different),
          .tolerance = 0,
          .detail = fmt::format("of {} tokens differ, after a prompt of {}", generated.size(), prompt.size()),
          .vacuous = generated.empty()};
}

Check check_causality(Engine& engine, Tokens tokens) {
  const std::size_t n = tokens.size();
  const Rows before = forward_logits(engine.runner(), tokens);
  std::int64_t leaks = 0, n_earlier = 0, n_changed = 0, n_probes = 0;
  for (const std::size_t p : {std::size_t{0}, n / 3, 2 * n / 3, n - 2}) {
    std::vector<std::int32_t> changed(tokens.begin(), tokens.end());
    changed[p] = another(changed[p], engine.spec());
    const Rows moved = forward_logits(engine.runner(), changed);
    for (std::size_t i = 0; i <= p; ++i) leaks += before[i] != moved[i];
    n_earlier += static_cast<std::int64_t>(p) + 1;
    n_probes += 1;
    n_changed += !std::equal(before.begin() + static_cast<std::ptrdiff_t>(p) + 1, before.end(),
                             moved.begin() + static_cast<std::ptrdiff_t>(p) + 1);
  }
  return {.name = "causality",
          .value = static_cast<double>(leaks),
          .tolerance = 0,
          .detail = fmt::format("of {} earlier logits move with a changed token; later ones move in {} of {} probes",
                                n_earlier, n_changed, n_probes),
          .vacuous = n_changed < n_probes};
}

Check check_batches(Engine& engine, Tokens tokens) {
  constexpr std::int64_t longest = 64;
  const std::int64_t most = std::min<std::int64_t>(longest, std::ssize(tokens)), all = threads();
  std::vector<std::int64_t> prompts;
  for (std::int64_t b = 0; b < 8; ++b) prompts.push_back(most * b / 7);
  const auto together = [&](std::int64_t n_threads) {
    const WithThreads with(n_threads);
    return Together(engine.runner(), tokens, prompts);
  };
  const Together one_thread = together(1), all_threads = together(std::max<std::int64_t>(2, all));
  std::int64_t different = 0, n = 0;
  for (std::size_t b = 0; b < prompts.size(); ++b) {
    const Together alone(engine.runner(), tokens, std::span(prompts).subspan(b, 1));
    for (std::size_t i = 0; i < alone.logits(0).size(); ++i, ++n)
      different += alone.logits(0)[i] != one_thread.logits(b)[i] || alone.logits(0)[i] != all_threads.logits(b)[i];
  }
  return {.name = "batch and threads do not matter",
          .value = static_cast<double>(different),
          .tolerance = 0,
          .detail = fmt::format("of {} logits differ: alone, in a batch of 8, with 1 and {} threads", n,
                                std::max<std::int64_t>(2, all)),
          .vacuous = n == 0};
}

Check check_kv_bytes(Engine& engine, Protocol protocol, Tokens tokens) {
  const Model& model = engine.model();
  Runner& runner = engine.runner();
  double worst = 0;
  std::int64_t bytes = 0;
  const std::int64_t group_tokens = model.spec.group_tokens(), in_use = runner.pool().bytes_in_use();
  for (const std::int64_t part : {0, 1, 2, 3, 4}) {
    std::int64_t n = std::ssize(tokens) * part / 4;
    if (protocol == Protocol::recgen) n = n / group_tokens * group_tokens;
    Sequence sequence = after(runner, first(tokens, n));
    if (protocol == Protocol::recgen) {
      runner.start_recgen(sequence);
      const Extension group{.sequence = &sequence, .tokens = first(tokens, group_tokens)};
      runner.score(protocol, {&group, 1}, [](std::size_t, std::int64_t, std::span<const float>) {});
    }
    const std::int64_t wanted = kv_bytes_allocated(model.spec, protocol, sequence.n_tokens, model.kv);
    bytes = sequence.kv_bytes_growing() + sequence.kv_bytes_constant();
    for (const std::int64_t got : {bytes, runner.pool().bytes_in_use() - in_use})
      worst = std::max(worst, std::abs(static_cast<double>(got - wanted)));
  }
  return {.name = fmt::format("KV bytes = accounting, {}", to_string(protocol)),
          .value = worst,
          .tolerance = 0,
          .detail = fmt::format("bytes off at 5 lengths; {:.1f} kB at the last", static_cast<double>(bytes) * 1e-3)};
}

Check check_recgen_state(Engine& engine, Tokens tokens) {
  const Model& model = engine.model();
  const std::int64_t L = model.n_levels(), group_tokens = model.spec.group_tokens(), n_groups = 3;
  // Whether groups know nothing of each other's tokens but through the top stream.
  const StackSpec& decoder = model.spec.level(1).decoder;
  const bool parallel = decoder.span.kind == Span::Kind::chunk && decoder.memory_of(MemorySpec::Kind::text) == nullptr;
  struct Run {
    Rows logits;
    std::vector<float> top;  // units of the top level
    std::int64_t other_growth = 0;
  };
  Runner& runner = engine.runner();
  // The first group's tokens are replaced or not; the likeliest of the others come out.
  const auto run = [&](bool replaced) {
    Sequence sequence = after(runner, first(tokens, std::ssize(tokens) / group_tokens * group_tokens));
    runner.start_recgen(sequence);
    const std::int64_t begin = sequence.n_tokens, constant = sequence.kv_bytes_constant();
    Run r;
    r.logits.resize(static_cast<std::size_t>(n_groups * group_tokens));
    Sequence* const batch[] = {&sequence};
    for (std::int64_t g = 0; g < n_groups; ++g) {
      runner.recgen_group(batch, [&](std::size_t, std::int64_t position, std::span<const float> row) {
        r.logits[static_cast<std::size_t>(position - begin)].assign(row.begin(), row.end());
        return replaced && position < begin + group_tokens ? another(argmax(row), model.spec) : argmax(row);
      });
      const UnitBuffer& units = sequence.units_of(L);
      const auto unit = units.at(units.end() - 1);
      r.top.insert(r.top.end(), unit.begin(), unit.end());
    }
    r.other_growth = std::abs(sequence.kv_bytes_constant() - constant) +
                     std::abs(sequence.kv_bytes_growing() - sequence.encoder(L).bytes() - sequence.memory_bytes());
    return r;
  };
  const Run plain = run(false), changed = run(true);
  std::int64_t different = plain.top != changed.top;
  for (std::size_t i = static_cast<std::size_t>(group_tokens); parallel && i < plain.logits.size(); ++i)
    different += plain.logits[i] != changed.logits[i];
  const std::int64_t growth = plain.other_growth;
  return {.name = "recgen keeps the top stream only",
          .value = static_cast<double>(different + growth),
          .tolerance = 0,
          .detail = fmt::format("{} move with replaced tokens; other caches grow by {} bytes",
                                parallel ? "top units and later logits" : "top units", growth),
          .vacuous = plain.logits[1] == changed.logits[1]};
}

Check check_rounding(Engine& reference, Engine& model, const std::string& what, double tolerance, Tokens tokens) {
  Comparer comparer(reference.runner(), model.runner());
  comparer.add(tokens, /*n_given=*/1);
  const Comparison c = comparer.result();
  return {.name = fmt::format("KL of {}", what),
          .value = c.kl,
          .tolerance = tolerance,
          .detail = fmt::format("nats, ± {:.2g}, at most {:.2g}; top-1 {:.1f} %", c.kl_standard_error, c.kl_max,
                                100 * c.top1_agreement),
          .vacuous = c.n_tokens == 0};
}

}  // namespace photon
