#include "engine/batch.h"

#include <algorithm>
#include <utility>

namespace photon {

void Batch::step(std::span<ActiveRequest* const> requests, std::int64_t prefill_tokens, std::vector<Event>& events) {
  share_out(requests, prefill_tokens);
  consume(requests, events);
  predict(requests, events);
  for (const bool one_by_one : {false, true}) decode_groups(requests, one_by_one, events);
}

// Every prompt gets an equal share; what short ones leave goes to the longer ones.
void Batch::share_out(std::span<ActiveRequest* const> requests, std::int64_t prefill_tokens) {
  slices_.clear();
  for (ActiveRequest* request : requests)
    if (request->prefilling()) slices_.push_back({.request = request, .tokens = request->next_tokens()});
  if (slices_.empty()) return;
  std::ranges::rotate(slices_, slices_.begin() + static_cast<std::ptrdiff_t>(first_++ % slices_.size()));
  std::ranges::stable_sort(slices_, {}, [](const Slice& s) { return s.tokens.size(); });
  auto left = static_cast<std::size_t>(prefill_tokens), waiting = slices_.size();
  for (Slice& slice : slices_) {
    const std::size_t n = std::min(slice.tokens.size(), left / waiting);  // the last one has the remainder
    slice.tokens = slice.tokens.first(n);
    left -= n, --waiting;
  }
}

// Slices of prompts, and what continuations chose last.
void Batch::consume(std::span<ActiveRequest* const> requests, std::vector<Event>& events) {
  extensions_.clear();
  for (const Slice& slice : slices_)  // also no tokens: an empty prompt begins, too
    extensions_.push_back({.sequence = &slice.request->prompt(),
                           .tokens = slice.tokens,
                           .logits = slice.request->request().score_prompt ? Logits::given : Logits::none});
  for (ActiveRequest* request : requests)
    for (Continuation& c : request->continuations())
      if (c.sequence && c.sequence->protocol == Protocol::hiergen)
        extensions_.push_back({.sequence = &*c.sequence, .tokens = {&c.latest, 1}});
  if (extensions_.empty()) return;

  std::vector<std::vector<TokenLogprob>> scored(slices_.size());
  runner_.forward(extensions_, [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    ActiveRequest& request = *slices_[b].request;
    if (!request.live()) return;
    try {
      require_finite(logits, position);
      scored[b].push_back(
          token_logprob(logits, request.request().prompt[position], request.request().n_top_logprobs.value_or(0)));
    } catch (...) {
      request.fail(std::current_exception());
    }
  });
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    ActiveRequest& request = *slices_[i].request;
    if (request.live() && !slices_[i].tokens.empty())
      events.emplace_back(request.id(), PromptConsumed{.n_tokens = request.prompt().n_tokens});
    if (request.live() && !scored[i].empty())
      events.emplace_back(request.id(), PromptScored{.logprobs = std::move(scored[i])});
    auto& stops = request.stops;
    if (stops.empty() || stops.front() != request.prompt().n_tokens) continue;
    stops.pop_front();
    if (at_stop) at_stop(request);
  }
}

// The next token of every hiergen continuation, and the first of every prompt that is consumed.
void Batch::predict(std::span<ActiveRequest* const> requests, std::vector<Event>& events) {
  extensions_.clear(), askers_.clear();
  const auto ask = [&](Sequence& sequence, ActiveRequest& request, Continuation* continuation) {
    extensions_.push_back({.sequence = &sequence, .logits = Logits::next});
    askers_.push_back({&request, continuation});
  };
  for (ActiveRequest* request : requests) {
    if (!request->live()) continue;
    for (Continuation& c : request->continuations()) {
      if (!c.sequence || c.sequence->protocol != Protocol::hiergen) continue;
      if (request->begins_recgen(*c.sequence))
        runner_.start_recgen(*c.sequence);
      else
        ask(*c.sequence, *request, &c);
    }
    if (!request->prefilling() || !request->prompt_consumed()) continue;
    const bool wanted = request->request().n_tokens > 0;
    if (wanted && !request->begins_recgen(request->prompt())) {
      ask(request->prompt(), *request, nullptr);
    } else {
      if (wanted) runner_.start_recgen(request->prompt());
      request->split(runner_.work().weight_bytes_read);
    }
  }
  if (extensions_.empty()) return;
  runner_.forward(extensions_, [&](std::size_t b, std::int64_t, std::span<const float> logits) {
    const auto [request, continuation] = askers_[b];
    if (continuation != nullptr) {
      request->count_decoded(1);
      choose(*request, *continuation, logits, events);
    } else {
      request->split(runner_.work().weight_bytes_read);
      for (Continuation& first : request->continuations()) choose(*request, first, logits, events);
    }
  });
}

void Batch::choose(ActiveRequest& request, Continuation& c, std::span<const float> logits, std::vector<Event>& events) {
  TokenLogprob* const logprob = request.wants_logprobs() ? &logprob_ : nullptr;
  c.latest = request.choose(c, c.sequence->n_tokens, logits, {}, sampler_, logprob);
  request.add(c, c.latest, logprob, events);
}

void Batch::decode_groups(std::span<ActiveRequest* const> requests, bool one_by_one, std::vector<Event>& events) {
  sequences_.clear(), askers_.clear();
  for (ActiveRequest* request : requests) {
    if (!request->live() || request->request().one_by_one != one_by_one) continue;
    for (Continuation& c : request->continuations()) {
      if (!c.sequence || c.sequence->protocol != Protocol::recgen) continue;
      sequences_.push_back(&*c.sequence);
      askers_.push_back({request, &c});
    }
  }
  if (askers_.empty()) return;
  const std::int64_t group_tokens = runner_.spec().group_tokens(), chunk_tokens = runner_.spec().chunk_tokens(1);
  for (const auto& [request, c] : askers_) {
    c->group.resize(group_tokens);
    if (request->wants_logprobs()) c->group_logprobs.resize(group_tokens);
  }
  const auto choose_in_group = [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    const auto& [request, c] = askers_[b];
    const std::int64_t i = position - c->sequence->n_tokens;
    const auto chunk = std::span(c->group).subspan(i / chunk_tokens * chunk_tokens, i % chunk_tokens);
    return c->group[i] = request->choose(*c, position, logits, chunk, sampler_,
                                         request->wants_logprobs() ? &c->group_logprobs[i] : nullptr);
  };
  runner_.recgen_group(sequences_, choose_in_group, one_by_one);
  for (const auto& [request, c] : askers_) {
    request->count_decoded(group_tokens);
    for (std::int64_t i = 0; i < group_tokens; ++i)
      request->add(*c, c->group[i], request->wants_logprobs() ? &c->group_logprobs[i] : nullptr, events);
  }
}

}  // namespace photon
