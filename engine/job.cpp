#include "engine/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "base/error.h"

namespace photon {
namespace {

std::int64_t at_most(const Model& model, const Request& r, std::int64_t n_continuations) {
  return photon::kv_bytes_at_most(model.spec, r.protocol, std::ssize(r.prompt), r.n_tokens, n_continuations, model.kv);
}

std::string what(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

}  // namespace

void check_tokens(const Spec& spec, std::span<const std::int32_t> tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= spec.vocab_size)
      throw InputError(fmt::format("token {} of the input is {}, the model's ids are 0 to {}", i + 1, tokens[i],
                                   spec.vocab_size - 1));
}

void check_protocol(const Spec& spec, Protocol protocol) {
  if (protocol == Protocol::recgen && spec.n_levels() == 0)
    throw InputError("--protocol recgen needs a model with levels, this one is vanilla; use hiergen");
}

void check(const Request& r, const Spec& spec) {
  check_tokens(spec, r.prompt);
  check_protocol(spec, r.protocol);
  check(r.sampler);
  for (const auto& [token, bias] : r.sampler.logit_bias)
    if (token >= spec.vocab_size)
      throw InputError(
          fmt::format("the logit bias names token {}, the model's ids are 0 to {}", token, spec.vocab_size - 1));
  if (r.n_tokens < 0) throw InputError(fmt::format("{} tokens are asked for, must be 0 or more", r.n_tokens));
  if (r.n_continuations < 1)
    throw InputError(fmt::format("{} continuations are asked for, must be 1 or more", r.n_continuations));
  if (const std::int64_t n = r.n_top_logprobs.value_or(0); n < 0 || n > spec.vocab_size)
    throw InputError(
        fmt::format("log-probabilities of {} tokens are asked for, must be from 0 to {}", n, spec.vocab_size));
}

Job::Job(std::uint64_t id, const Model& model, Request request, RequestListener& listener)
    : id_(id),
      model_(model),
      request_(std::move(request)),
      listener_(listener),
      group_tokens_(model.spec.chunk_tokens(model.spec.n_levels())),
      kv_bytes_at_most_(at_most(model, request_, request_.n_continuations)),
      kv_bytes_of_another_(at_most(model, request_, 2) - at_most(model, request_, 1)) {
  stats_.prompt_tokens = std::ssize(request_.prompt);
}

// ---- from the queue to the first token ----

void Job::start(Sequence sequence) {
  started_ = Clock::now();
  stats_.cached_tokens = sequence.n_tokens;
  prompt_ = std::move(sequence);
  tell([&](RequestListener& listener) { listener.on_start(stats_.cached_tokens); });
}

std::span<const std::int32_t> Job::next_tokens() const {
  const auto first = static_cast<std::size_t>(prompt_->n_tokens);
  const auto end = stops.empty() ? request_.prompt.size() : static_cast<std::size_t>(stops.front());
  return std::span(request_.prompt).subspan(first, end - first);
}

void Job::add_prompt_logprobs(std::span<const TokenLogprob> logprobs) {
  tell([&](RequestListener& listener) { listener.on_prompt_logprobs(logprobs); });
}

void Job::split(std::int64_t weight_bytes_read) {
  prefilled_ = Clock::now();
  // Forks count their traffic from 0, so the prompt's stays with the last continuation, which is no fork.
  work_.prefill_kv = prompt_->kv_traffic();
  work_.prefill_weight_bytes_read = weight_bytes_read;
  // Nothing to generate: one continuation's memory is enough to be counted.
  const std::int64_t n = request_.n_continuations;
  for (std::int64_t i = 0; i < n; ++i) {
    Stream& stream = streams_.emplace_back(Stream{.id = static_cast<std::size_t>(i), .sequence = std::nullopt});
    if (i + 1 == n)
      stream.sequence = std::move(*prompt_);
    else if (request_.n_tokens > 0)
      stream.sequence = prompt_->fork();
  }
  prompt_.reset();
  if (request_.n_tokens == 0)
    for (Stream& stream : streams_) end(stream, FinishReason::length);
}

// ---- continuations ----

std::int32_t Job::choose(Stream& stream, std::int64_t position, std::span<const float> logits,
                         std::span<const std::int32_t> chunk, Sampler& sampler, TokenLogprob* logprob) {
  if (!live()) return 0;
  try {
    const TextSoFar text{.prompt = request_.prompt, .generated = stream.generated, .chunk = chunk};
    const std::int32_t token = sampler.sample(request_.sampler, logits, text, stream.id, position);
    if (logprob != nullptr) *logprob = token_logprob(logits, token, *request_.n_top_logprobs);
    return token;
  } catch (...) {
    fail(std::current_exception());
    return 0;
  }
}

void Job::add(Stream& stream, std::int32_t token, const TokenLogprob* logprob) {
  if (stream.ended || !live()) return;
  if (token == model_.spec.eos_token_id && !request_.ignore_eos) {
    tell([&](RequestListener& listener) { listener.on_eos(stream.id, token, logprob); });
    return end(stream, FinishReason::eos);
  }
  stream.generated.push_back(token);
  ++stats_.generated_tokens;
  bool more = true;
  tell([&](RequestListener& listener) { more = listener.on_token(stream.id, token, logprob); });
  if (!more)
    end(stream, FinishReason::stopped);
  else if (std::ssize(stream.generated) == request_.n_tokens)
    end(stream, FinishReason::length);
}

void Job::end(Stream& stream, FinishReason reason) {
  stream.ended = true;
  tell([&](RequestListener& listener) { listener.on_finish(stream.id, reason); });
}

Sequence Job::release(Stream& stream) {
  std::vector<const Sequence*> others;
  for (const Stream& other : streams_)
    if (&other != &stream && other.sequence) others.push_back(&*other.sequence);
  stats_.kv_bytes_growing += stream.sequence->kv_bytes_growing_beside(others);
  stats_.kv_bytes_constant += stream.sequence->kv_bytes_constant();
  work_.kv += stream.sequence->kv_traffic();
  work_.context_tokens = std::max(work_.context_tokens, stream.sequence->n_tokens);
  Sequence last = std::move(*stream.sequence);
  stream.sequence.reset();
  return last;
}

// ---- the end ----

template <class Call>
void Job::tell(const Call& call) {
  if (!live()) return;
  try {
    call(listener_);
  } catch (...) {
    fail(std::current_exception());
  }
}

void Job::fail(std::exception_ptr failure) {
  if (failure_ == nullptr) failure_ = std::move(failure);
}

bool Job::over() const {
  return !live() || (!streams_.empty() && std::ranges::all_of(streams_, [](const Stream& s) { return s.ended; }));
}

void Job::close() {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const auto now = Clock::now(), never = Clock::time_point{};
  const auto started = started_ == never ? now : started_, prefilled = prefilled_ == never ? now : prefilled_;
  stats_.queue_ms = Milliseconds(started - submitted_).count();
  stats_.prefill_ms = Milliseconds(prefilled - started).count();
  stats_.decode_ms = Milliseconds(now - prefilled).count();

  for (Stream& stream : streams_)
    if (stream.sequence) release(stream);
  if (prompt_) {
    stats_.kv_bytes_growing = prompt_->kv_bytes_growing();
    stats_.kv_bytes_constant = prompt_->kv_bytes_constant();
    prompt_.reset();
  }
  try {
    if (cancelled_ && failure_ == nullptr)
      for (std::int64_t i = 0; i < request_.n_continuations; ++i)
        if (streams_.empty() || !streams_[static_cast<std::size_t>(i)].ended)
          listener_.on_finish(static_cast<std::size_t>(i), FinishReason::cancelled);
  } catch (...) {
    fail(std::current_exception());
  }
  const std::string error = failure_ == nullptr ? "" : what(failure_);
  try {
    listener_.on_done(stats_, failure_ == nullptr ? nullptr : &error);
  } catch (...) {
    fail(std::current_exception());  // nobody is left who could be told
  }
}

// ---- memory ----

std::int64_t Job::kv_bytes_to_come() const {
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
  for (const Stream& stream : streams_)
    if (stream.sequence) bytes += to_come(*stream.sequence, stream.sequence->n_tokens);
  return bytes;
}

std::int64_t Job::n_live_sequences() const {
  return std::ranges::count_if(streams_, [](const Stream& stream) { return stream.sequence.has_value(); });
}

std::int64_t Job::kv_bytes_constant() const {
  std::int64_t bytes = prompt_ ? prompt_->kv_bytes_constant() : 0;
  for (const Stream& stream : streams_)
    if (stream.sequence) bytes += stream.sequence->kv_bytes_constant();
  return bytes;
}

}  // namespace photon
