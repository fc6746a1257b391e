#include "engine/active_request.h"

#include <algorithm>
#include <utility>

namespace photon {
namespace {

std::int64_t at_most(const Model& model, const Request& r, std::int64_t n_continuations) {
  return photon::kv_bytes_at_most(model.spec, r.protocol, std::ssize(r.prompt), r.n_tokens, n_continuations, model.kv);
}

}  // namespace

ActiveRequest::ActiveRequest(RequestId id, const Model& model, Request request)
    : id_(id),
      model_(model),
      request_(std::move(request)),
      group_tokens_(model.spec.group_tokens()),
      kv_bytes_at_most_(at_most(model, request_, request_.n_continuations)),
      kv_bytes_of_another_(at_most(model, request_, 2) - at_most(model, request_, 1)) {
  stats_.prompt_tokens = std::ssize(request_.prompt);
}

// ---- from the queue to the first token ----

void ActiveRequest::start(Sequence sequence) {
  started_ = Clock::now();
  stats_.cached_tokens = sequence.n_tokens;
  prompt_ = std::move(sequence);
}

std::span<const std::int32_t> ActiveRequest::next_tokens() const {
  const std::int64_t first = prompt_->n_tokens, end = stops.empty() ? std::ssize(request_.prompt) : stops.front();
  return std::span(request_.prompt).subspan(first, end - first);
}

void ActiveRequest::split(std::int64_t weight_bytes_read) {
  prefilled_ = Clock::now();
  // Forks count their traffic from 0, so the prompt's stays with the last continuation, which is no fork.
  stats_.prefill_kv = prompt_->kv_traffic();
  prefill_weight_bytes_read_ = weight_bytes_read;
  // Nothing to generate: one continuation's memory is enough to be counted.
  const std::int64_t n = request_.n_continuations;
  for (std::int64_t i = 0; i < n; ++i) {
    Continuation& c = continuations_.emplace_back(Continuation{.id = static_cast<std::size_t>(i)});
    if (i + 1 == n)
      c.sequence = std::move(*prompt_);
    else if (request_.n_tokens > 0)
      c.sequence = prompt_->fork();
    if (request_.n_tokens == 0) c.finish = FinishReason::length;
  }
  prompt_.reset();
}

// ---- continuations ----

std::int32_t ActiveRequest::choose(Continuation& continuation, std::int64_t position, std::span<const float> logits,
                                   std::span<const std::int32_t> chunk, Sampler& sampler, TokenLogprob* logprob) {
  if (!live()) return 0;
  try {
    const TextSoFar text{.prompt = request_.prompt, .generated = continuation.tokens, .chunk = chunk};
    const std::int32_t token = sampler.sample(request_.sampler, logits, text, continuation.id, position);
    if (logprob != nullptr) *logprob = token_logprob(logits, token, *request_.n_top_logprobs);
    return token;
  } catch (...) {
    fail(std::current_exception());
    return 0;
  }
}

void ActiveRequest::add(Continuation& c, std::int32_t token, const TokenLogprob* logprob, std::vector<Event>& events) {
  if (c.finish || !live()) return;
  const bool is_eos = token == model_.spec.eos_token_id && !request_.ignore_eos;
  events.emplace_back(id_, TokenChosen{.continuation = c.id,
                                       .token = token,
                                       .logprob = logprob == nullptr ? std::nullopt : std::optional(*logprob),
                                       .is_eos = is_eos});
  if (!is_eos) c.tokens.push_back(token);
  if (is_eos)
    c.finish = FinishReason::eos;
  else if (std::ssize(c.tokens) == request_.n_tokens)
    c.finish = FinishReason::length;
}

void ActiveRequest::stop(std::size_t continuation, std::int64_t n) {
  if (continuation >= continuations_.size()) return;
  Continuation& c = continuations_[continuation];
  if (c.told || std::ssize(c.tokens) < n) return;
  c.tokens.resize(n);
  c.finish = FinishReason::stopped;
}

// ---- the end ----

void ActiveRequest::fail(std::exception_ptr failure) {
  if (failure_ == nullptr) failure_ = std::move(failure);
}

bool ActiveRequest::over() const {
  return !live() || (!continuations_.empty() &&
                     std::ranges::all_of(continuations_, [](const auto& c) { return c.finish.has_value(); }));
}

std::optional<Sequence> ActiveRequest::take(Continuation& c) {
  if (!c.sequence) return std::nullopt;
  std::vector<const Sequence*> others;
  for (const Continuation& other : continuations_)
    if (&other != &c && other.sequence) others.push_back(&*other.sequence);
  stats_.kv_bytes_growing += c.sequence->kv_bytes_growing_beside(others);
  stats_.kv_bytes_constant += c.sequence->kv_bytes_constant();
  kv_ += c.sequence->kv_traffic();
  stats_.context_tokens = std::max(stats_.context_tokens, c.sequence->n_tokens);
  return std::exchange(c.sequence, std::nullopt);
}

std::optional<Sequence> ActiveRequest::release(Continuation& c, std::vector<Event>& events) {
  if (!std::exchange(c.told, true)) events.emplace_back(id_, Finished{.continuation = c.id, .reason = *c.finish});
  return take(c);
}

void ActiveRequest::close(std::int64_t weight_bytes_read, std::vector<Event>& events) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const auto now = Clock::now(), never = Clock::time_point{};
  const auto started = started_ == never ? now : started_, prefilled = prefilled_ == never ? now : prefilled_;
  stats_.queue_ms = Milliseconds(started - submitted_).count();
  stats_.prefill_ms = Milliseconds(prefilled - started).count();
  stats_.decode_ms = Milliseconds(now - prefilled).count();

  for (Continuation& c : continuations_) {
    stats_.generated_tokens += std::ssize(c.tokens);
    take(c);
  }
  if (prompt_) {
    stats_.kv_bytes_growing = prompt_->kv_bytes_growing();
    stats_.kv_bytes_constant = prompt_->kv_bytes_constant();
    prompt_.reset();
  }
  stats_.decode_kv = kv_ - stats_.prefill_kv;
  stats_.decode_weight_bytes_read = prefilled_ == never ? 0 : weight_bytes_read - prefill_weight_bytes_read_;
  if (failure_ == nullptr)
    for (std::int64_t i = 0; i < request_.n_continuations; ++i)
      if (continuations_.empty() || !continuations_[i].told) {
        const auto finish = continuations_.empty() ? std::nullopt : continuations_[i].finish;
        events.emplace_back(id_, Finished{.continuation = static_cast<std::size_t>(i),
                                          .reason = finish.value_or(FinishReason::cancelled)});
      }
  events.emplace_back(id_, Done{.stats = stats_, .failure = failure_});
}

// ---- memory ----

std::int64_t ActiveRequest::kv_bytes_to_come() const {
  const auto to_come = [&](const Sequence& sequence, std::int64_t exact_tokens) {
    const auto whole_groups = [this](std::int64_t T) {
      return (T + group_tokens_ - 1) / group_tokens_ * group_tokens_;
    };
    const std::int64_t end = std::ssize(request_.prompt) + request_.n_tokens;
    return request_.protocol == Protocol::recgen
               ? sequence.kv_bytes_to_come(Protocol::recgen, whole_groups(exact_tokens), whole_groups(end))
               : sequence.kv_bytes_to_come(Protocol::hiergen, end, end);
  };
  if (prompt_)
    return to_come(*prompt_, std::ssize(request_.prompt)) + (request_.n_continuations - 1) * kv_bytes_of_another_;
  std::int64_t bytes = 0;
  for (const Continuation& c : continuations_)
    if (c.sequence) bytes += to_come(*c.sequence, c.sequence->n_tokens);
  return bytes;
}

std::int64_t ActiveRequest::n_live_sequences() const {
  return std::ranges::count_if(continuations_, [](const Continuation& c) { return c.sequence.has_value(); });
}

std::int64_t ActiveRequest::kv_bytes_constant() const {
  std::int64_t bytes = prompt_ ? prompt_->kv_bytes_constant() : 0;
  for (const Continuation& c : continuations_)
    if (c.sequence) bytes += c.sequence->kv_bytes_constant();
  return bytes;
}

}  // namespace photon
