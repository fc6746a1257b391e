#include "eval/agreement.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "spec/accounting.h"

namespace photon {
namespace {

constexpr std::int64_t slice_tokens = 32;                 // about: bounds the logits that are held
constexpr std::size_t most_texts = 8;                     // decoded in step: they share each pass through the weights
constexpr std::int64_t kv_bytes = std::int64_t{1} << 30;  // that a batch may take

std::int64_t whole_groups(const Spec& spec) {
  return std::max<std::int64_t>(1, slice_tokens / spec.group_tokens()) * spec.group_tokens();
}

double cosine_of(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y, aa += x * x, bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

}  // namespace

Agreement::Agreement(Runner& runner) : runner_(runner), model_(runner.model()), slice_(whole_groups(model_.spec)) {
  for (Pass* pass : {&hiergen_, &recgen_})
    for (std::int64_t l = 1; l < L(); ++l) {
      const std::int64_t slots = model_.spec.chunk_tokens(L()) / model_.spec.chunk_tokens(l);
      pass->cosines.push_back({.level = l, .all = {}, .by_slot = std::vector<Mean>(static_cast<std::size_t>(slots))});
    }
}

void Agreement::add(std::span<const std::vector<std::int32_t>> texts, std::int64_t n_given) {
  for (const auto& text : texts) check_tokens(model_.spec, text);
  while (!texts.empty()) {
    const std::size_t n = batch_size(texts);
    add_batch(texts.first(n), n_given);
    texts = texts.subspan(n);
  }
}

std::size_t Agreement::batch_size(std::span<const std::vector<std::int32_t>> texts) const {
  std::int64_t bytes = 0;
  std::size_t n = 0;
  for (; n < std::min(texts.size(), most_texts); ++n) {
    bytes += 3 * kv_bytes_allocated(model_.spec, Protocol::hiergen, std::ssize(texts[n]), model_.kv);
    if (n > 0 && bytes > kv_bytes) break;
  }
  return n;
}

void Agreement::add_batch(std::span<const std::vector<std::int32_t>> texts, std::int64_t n_given) {
  for (Pass* pass : {&forward_, &hiergen_, &recgen_}) {
    pass->sequences.clear();
    for (std::size_t b = 0; b < texts.size(); ++b) pass->sequences.push_back(runner_.sequence());
  }
  std::size_t longest = 0;
  for (const auto& text : texts) longest = std::max(longest, text.size());
  Parts parts(texts.size());
  const auto slice = static_cast<std::size_t>(slice_);
  for (std::size_t first = 0; first < longest; first += slice) {
    for (std::size_t b = 0; b < texts.size(); ++b) {
      const auto rest = std::span(texts[b]).subspan(std::min(first, texts[b].size()));
      parts[b] = rest.first(std::min(slice, rest.size()));
    }
    first_ = static_cast<std::int64_t>(first);
    run_forward(parts);
    run_hiergen(parts);
    compare(hiergen_, parts, n_given);
    if (L() == 0) continue;
    run_recgen(parts);
    compare(recgen_, parts, n_given);
  }
  runner_.watch_units({});
}

// The forward pass shows X, the protocols X̂.
void Agreement::start(Pass& pass, bool predicted) {
  const std::int64_t B = std::ssize(pass.sequences);
  pass.logits.resize(B * slice_, model_.spec.vocab_size);
  pass.units.resize(static_cast<std::size_t>(std::max<std::int64_t>(1, L())));
  for (std::int64_t l = 1; l < L(); ++l) pass.units_of(l).resize(B * slice_units(l), model_.spec.width(l));
  runner_.watch_units([this, &pass, predicted](const Unit& u) {
    if (u.predicted != predicted) return;
    const std::int64_t b = u.sequence - pass.sequences.data(), i = u.index - first_ / model_.spec.chunk_tokens(u.level);
    std::ranges::copy(u.x, pass.units_of(u.level).row(b * slice_units(u.level) + i).begin());
  });
}

void Agreement::keep(Pass& pass, std::size_t b, std::int64_t position, std::span<const float> logits) const {
  require_finite(logits, position);
  std::ranges::copy(logits, pass.logits.row(static_cast<std::int64_t>(b) * slice_ + position - first_).begin());
}

void Agreement::run_forward(const Parts& parts) {
  start(forward_, /*predicted=*/false);
  score(forward_, parts, Protocol::hiergen);
}

void Agreement::score(Pass& pass, const Parts& parts, Protocol protocol) {
  std::vector<Extension> batch;
  for (std::size_t b = 0; b < parts.size(); ++b) batch.push_back({&pass.sequences[b], parts[b]});
  runner_.score(protocol, batch, [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    keep(pass, b, position, logits);
  });
}

void Agreement::run_hiergen(const Parts& parts) {
  start(hiergen_, /*predicted=*/true);
  std::vector<std::size_t> active;
  std::vector<Extension> next, tokens;
  for (std::size_t i = 0; i < static_cast<std::size_t>(slice_); ++i) {
    active.clear(), next.clear(), tokens.clear();
    for (std::size_t b = 0; b < parts.size(); ++b) {
      if (i >= parts[b].size()) continue;
      active.push_back(b);
      next.push_back({.sequence = &hiergen_.sequences[b], .logits = Logits::next});
      tokens.push_back({.sequence = &hiergen_.sequences[b], .tokens = parts[b].subspan(i, 1)});
    }
    if (active.empty()) return;
    runner_.forward(next, [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
      keep(hiergen_, active[b], position, logits);
    });
    runner_.forward(tokens);
  }
}

void Agreement::run_recgen(const Parts& parts) {
  start(recgen_, /*predicted=*/true);
  score(recgen_, parts, Protocol::recgen);
}

void Agreement::compare(Pass& pass, const Parts& parts, std::int64_t n_given) const {
  for (std::size_t b = 0; b < parts.size(); ++b) {
    const std::int64_t n = std::ssize(parts[b]), given = std::clamp<std::int64_t>(n_given - first_, 0, n);
    const auto counted = [&](const Pass& from) {
      return from.logits.view().slice(static_cast<std::int64_t>(b) * slice_ + given, n - given);
    };
    pass.divergence.add(counted(forward_), counted(pass), parts[b].subspan(static_cast<std::size_t>(given)));
    for (UnitCosine& cosine : pass.cosines) {
      const std::int64_t l = cosine.level, from = static_cast<std::int64_t>(b) * slice_units(l);
      for (std::int64_t i = 0; i < n / model_.spec.chunk_tokens(l); ++i) {  // the others have no X yet
        const double similarity =
            cosine_of(std::as_const(forward_.units_of(l)).row(from + i), std::as_const(pass.units_of(l)).row(from + i));
        cosine.all.add(similarity);
        cosine.by_slot[static_cast<std::size_t>(i) % cosine.by_slot.size()].add(similarity);
      }
    }
  }
}

std::vector<ProtocolAgreement> Agreement::result() const {
  std::vector<ProtocolAgreement> all{{Protocol::hiergen, hiergen_.divergence.result(), hiergen_.cosines}};
  if (L() > 0) all.push_back({Protocol::recgen, recgen_.divergence.result(), recgen_.cosines});
  return all;
}

GreedyAgreement greedy_agreement(Engine& engine, std::span<const std::vector<std::int32_t>> prompts,
                                 std::int64_t n_tokens) {
  GreedyAgreement result{.n_prompts = std::ssize(prompts), .n_tokens = n_tokens, .equal = {}, .first_difference = {}};
  for (const auto& prompt : prompts) {
    const auto tokens = [&](Protocol protocol) {
      return engine
          .generate({.prompt = prompt,
                     .n_tokens = n_tokens,
                     .protocol = protocol,
                     .sampler = {.temperature = 0},
                     .ignore_eos = true})
          .tokens();
    };
    const std::vector<std::int32_t> exact = tokens(Protocol::hiergen), recursive = tokens(Protocol::recgen);
    for (std::size_t i = 0; i < exact.size(); ++i) result.equal.add(exact[i] == recursive[i]);
    result.first_difference.push_back(std::ranges::mismatch(exact, recursive).in1 - exact.begin());
  }
  return result;
}

}  // namespace photon
