#include "serve/completion.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "serve/integrate.h"

namespace photon {
namespace {

constexpr std::size_t large_answer = 4096;  // tokens with log-probabilities: from here on telling them takes a while

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

std::string_view to_string(FinishReason reason) { return reason == FinishReason::length ? "length" : "stop"; }

std::string_view to_string(Integrate integrate) { return integrate == Integrate::best ? "best" : "majority"; }

ApiError error_of(const std::exception_ptr& refusal, const CompletionRequest& request) {
  try {
    std::rethrow_exception(refusal);
  } catch (const QueueFull& e) {
    return ApiError(429, e.what(), {}, "queue_full");
  } catch (const InputError& e) {  // the request was checked, so what can never run is too large
    return invalid_request(e.what(), request.engine.n_continuations > 1 ? "n" : "max_tokens", "request_too_large");
  } catch (const Error& e) {
    return ApiError(503, e.what());
  }
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

// Hears of one prompt from the engine.
class Completion::Prompt : public RequestListener {
 public:
  struct Continuation {
    ChoiceText text;
    TextDelta whole{};           // what was taken of it, unless it is streamed
    std::size_t echo_bytes = 0;  // at its beginning
    double sum_logprob = 0;
    std::int64_t n_logprobs = 0;
    std::optional<FinishReason> reason{};
    bool shown = false;  // its first event is sent
    Clock::time_point last_token{};

    double mean_logprob() const { return n_logprobs > 0 ? sum_logprob / static_cast<double>(n_logprobs) : 0; }
  };

  Prompt(Completion& owner, std::size_t index, std::vector<std::int32_t> prompt_tokens)
      : tokens(std::move(prompt_tokens)), owner_(owner), index_(index) {
    const CompletionRequest& request = owner.request_;
    const auto before = request.echo ? std::span<const std::int32_t>() : std::span<const std::int32_t>(tokens);
    for (std::int64_t i = 0; i < request.engine.n_continuations; ++i)
      continuations.push_back({.text = ChoiceText(owner.tokenizer_, before, request.stops)});
  }

  bool hear(const Event& event) override {
    const auto heard = [this](const auto& what) {
      if constexpr (std::is_same_v<decltype(on(what)), bool>) return on(what);
      on(what);
      return true;
    };
    return std::visit(heard, event.what);
  }

  std::size_t index() const { return index_; }

  std::vector<std::int32_t> tokens;
  std::deque<Continuation> continuations;
  RequestStats stats{};

 private:
  void on(const Started&) {
    if (!owner_.request_.echo || owner_.request_.logprobs) return;
    for (std::size_t i = 0; i < continuations.size(); ++i) {
      for (const std::int32_t token : tokens) continuations[i].text.echo(token, std::nullopt);
      show_echo(i);
    }
  }
  void on(const PromptConsumed&) {}
  void on(const PromptScored& scored) {
    const std::vector<TokenLogprob>& logprobs = scored.logprobs;
    for (std::size_t i = 0; i < continuations.size(); ++i) {
      for (std::size_t j = 0; j < logprobs.size(); ++j) {
        const std::size_t position = n_scored_ + j;  // nothing precedes the first: by convention it has none
        continuations[i].text.echo(tokens[position], position > 0 ? std::optional(logprobs[j]) : std::nullopt);
      }
      show_echo(i);
    }
    n_scored_ += logprobs.size();
  }
  bool on(const TokenChosen& chosen) {
    const std::size_t i = chosen.continuation;
    Continuation& c = continuations[i];
    if (!chosen.is_eos || c.last_token == Clock::time_point{}) count_time(i);
    if (chosen.logprob) {
      c.sum_logprob += static_cast<double>(chosen.logprob->logprob);
      ++c.n_logprobs;
    }
    const std::optional<TokenLogprob> shown = owner_.request_.logprobs ? chosen.logprob : std::nullopt;
    if (chosen.is_eos) {
      if (owner_.request_.logprobs) c.text.add_eos(chosen.token, shown);
      return true;
    }
    const bool more = c.text.add(chosen.token, shown);
    owner_.show(*this, i);
    return more && !owner_.ended_;  // nobody waits any more where another prompt has failed
  }
  void on(const Finished& finished) {
    Continuation& c = continuations[finished.continuation];
    c.reason = finished.reason;
    if (finished.reason == FinishReason::cancelled) return;
    c.text.finish();
    owner_.show(*this, finished.continuation);
  }
  void on(const Done& done) {
    if (!owner_.accepted_) return;  // taken back, since another prompt was refused
    stats = done.stats;
    const bool failed = done.failure != nullptr;
    const bool cancelled = std::ranges::any_of(
        continuations, [](const Continuation& c) { return !c.reason || *c.reason == FinishReason::cancelled; });
    const bool length =
        std::ranges::any_of(continuations, [](const Continuation& c) { return c.reason == FinishReason::length; });
    owner_.metrics_.request_done(owner_.request_.engine.protocol,
                                 failed      ? Outcome::failed
                                 : cancelled ? Outcome::cancelled
                                 : length    ? Outcome::length
                                             : Outcome::stop,
                                 stats, Clock::now() - owner_.arrival_);
    if (failed) {
      const std::string why = what(done.failure);
      spdlog::error("the engine failed a request: {}", why);
      owner_.fail(ApiError(500, "the engine failed: " + why));
    } else if (cancelled) {  // unless the client went, nobody but a server that ends cancels
      owner_.fail(ApiError(503, "The server is shutting down"));
    }
    owner_.prompt_done();
  }

  void show_echo(std::size_t i) {
    owner_.show(*this, i);
    continuations[i].echo_bytes = continuations[i].whole.text.size();
  }
  void count_time(std::size_t i) {
    const auto now = Clock::now(), last = std::exchange(continuations[i].last_token, now);
    if (last != Clock::time_point{})
      owner_.metrics_.next_token(owner_.request_.engine.protocol, now - last);
    else if (!std::exchange(begun_, true))
      owner_.metrics_.first_token(owner_.request_.engine.protocol, now - owner_.arrival_);
  }

  Completion& owner_;
  std::size_t index_, n_scored_ = 0;
  bool begun_ = false;
};

Completion::Completion(CompletionRequest request, std::vector<std::vector<std::int32_t>> prompts, Answer answer,
                       const Tokenizer* tokenizer, Metrics& metrics, std::shared_ptr<Responder> responder)
    : request_(std::move(request)),
      answer_(std::move(answer)),
      tokenizer_(tokenizer),
      metrics_(metrics),
      responder_(std::move(responder)) {
  answer_.logprobs = request_.logprobs.has_value();
  answer_.token_ids = request_.return_token_ids;
  answer_.usage_follows = request_.include_usage;
  for (std::size_t i = 0; i < prompts.size(); ++i) prompts_.emplace_back(*this, i, std::move(prompts[i]));
}

Completion::~Completion() = default;

void Completion::start(EngineThread& engine, Background background) {
  background_ = std::move(background);
  std::vector<std::pair<Request, EngineThread::Listener>> requests;
  const auto self = shared_from_this();
  for (Prompt& prompt : prompts_)
    requests.emplace_back(engine_request(prompt), std::shared_ptr<RequestListener>(self, &prompt));
  const auto responder = responder_;
  const auto ticket =
      engine.submit(std::move(requests), [self](std::exception_ptr refusal) { self->submitted(std::move(refusal)); });
  responder->on_disconnect([&engine, ticket] { engine.cancel(ticket); });
}

Request Completion::engine_request(const Prompt& prompt) const {
  Request request = request_.engine;
  request.prompt = prompt.tokens;
  request.n_tokens = *request_.max_tokens;
  request.score_prompt = request_.echo && request_.logprobs;
  request.n_top_logprobs = request_.logprobs;
  if (!request_.seed_given) request.sampler.seed += prompt.index();  // equal prompts are samples of their own
  const bool ranked = request_.engine.n_continuations > request_.n || request_.integrate != Integrate::none;
  if (ranked && !request.n_top_logprobs) request.n_top_logprobs = 0;
  return request;
}

void Completion::submitted(std::exception_ptr refusal) {
  if (refusal) {
    metrics_.request_refused(request_.engine.protocol);
    return fail(error_of(refusal, request_));
  }
  accepted_ = true;
  if (!request_.stream) return;
  started_ = true;
  responder_->start_events();
}

void Completion::show(Prompt& prompt, std::size_t i) {
  Prompt::Continuation& continuation = prompt.continuations[i];
  TextDelta delta = continuation.text.take();
  if (!request_.stream) {
    TextDelta& whole = continuation.whole;
    whole.text += delta.text;
    std::ranges::move(delta.tokens, std::back_inserter(whole.tokens));
    return;
  }
  if (ended_ || (delta.empty() && !continuation.reason)) return;
  const auto index = static_cast<std::int64_t>(prompt.index() * static_cast<std::size_t>(request_.n) + i);
  const auto reason = continuation.reason ? std::optional(to_string(*continuation.reason)) : std::nullopt;
  responder_->write(answer_.event(index, delta, reason, !std::exchange(continuation.shown, true)));
}

void Completion::fail(const ApiError& error) {
  if (std::exchange(ended_, true)) return;
  if (!started_) return send_error(*responder_, error);
  responder_->write(server_event(error_json(error)) + std::string(end_of_events));
  responder_->finish();
}

void Completion::prompt_done() {
  if (++n_done_ < prompts_.size() || std::exchange(ended_, true)) return;
  if (!request_.stream) {
    std::size_t n_entries = 0;
    for (const Prompt& prompt : prompts_)
      for (const auto& continuation : prompt.continuations) n_entries += continuation.whole.tokens.size();
    if (!answer_.logprobs || n_entries < large_answer) return send_whole();
    return background_([self = shared_from_this()] { self->send_whole(); });
  }
  if (request_.include_usage) responder_->write(answer_.usage_event(usage()));
  responder_->write(std::string(end_of_events));
  responder_->finish();
}

void Completion::send_whole() {
  std::vector<Choice> choices;
  for (Prompt& prompt : prompts_) std::ranges::move(choices_of(prompt), std::back_inserter(choices));
  responder_->send(200, "application/json", answer_.whole(choices, usage()));
}

std::vector<Choice> Completion::choices_of(Prompt& prompt) const {
  std::vector<std::size_t> chosen(prompt.continuations.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = i;
  Json own = nullptr;
  if (request_.integrate != Integrate::none) {
    std::vector<Candidate> candidates;
    for (const auto& c : prompt.continuations)
      candidates.push_back({c.whole.text.substr(c.echo_bytes), c.mean_logprob()});
    Integration result;
    if (request_.integrate == Integrate::majority)
      result = majority(candidates, request_.integrate_regex.get());
    else
      result.winner = best(candidates);
    chosen = {result.winner};
    own = {{"integrate", to_string(request_.integrate)},
           {"n", candidates.size()},
           {"continuation", result.winner},
           {"mean_logprob", candidates[result.winner].mean_logprob}};
    if (request_.integrate == Integrate::majority) {
      own["answer"] = result.answer ? Json(*result.answer) : Json();
      Json& votes = own["votes"] = Json::array();
      for (const Vote& vote : result.votes) votes.push_back({{"answer", vote.answer}, {"count", vote.count}});
      own["without_answer"] = result.without_answer;
    }
  } else if (request_.engine.n_continuations > request_.n) {
    std::ranges::stable_sort(chosen, std::greater(),
                             [&](std::size_t i) { return prompt.continuations[i].mean_logprob(); });
    chosen.resize(static_cast<std::size_t>(request_.n));
  }
  std::vector<Choice> choices;
  for (const std::size_t i : chosen) {
    Prompt::Continuation& c = prompt.continuations[i];
    choices.push_back({.text = std::move(c.whole), .finish_reason = to_string(*c.reason), .photon = own});
  }
  return choices;
}

Json Completion::usage() const {
  RequestStats all;
  for (const Prompt& prompt : prompts_) {
    const RequestStats& s = prompt.stats;
    all.prompt_tokens += s.prompt_tokens, all.cached_tokens += s.cached_tokens;
    all.generated_tokens += s.generated_tokens;
    all.kv_bytes_growing += s.kv_bytes_growing, all.kv_bytes_constant += s.kv_bytes_constant;
    all.queue_ms = std::max(all.queue_ms, s.queue_ms);
    all.prefill_ms = std::max(all.prefill_ms, s.prefill_ms);
    all.decode_ms = std::max(all.decode_ms, s.decode_ms);
  }
  return {{"prompt_tokens", all.prompt_tokens},
          {"completion_tokens", all.generated_tokens},
          {"total_tokens", all.prompt_tokens + all.generated_tokens},
          {"prompt_tokens_details", {{"cached_tokens", all.cached_tokens}}},
          {"photon",
           {{"protocol", photon::to_string(request_.engine.protocol)},
            {"seed", request_.engine.sampler.seed},
            {"kv_bytes_growing", all.kv_bytes_growing},
            {"kv_bytes_constant", all.kv_bytes_constant},
            {"prefill_ms", all.prefill_ms},
            {"decode_ms", all.decode_ms},
            {"queue_ms", all.queue_ms}}}};
}

}  // namespace photon
