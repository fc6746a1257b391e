#include "engine/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "engine/batch.h"
#include "engine/prefix_cache.h"

namespace photon {
namespace {

// Below this a prompt is consumed sooner than a state would pay for its memory.
constexpr std::int64_t min_kept_tokens = 32;
// From here on a state is kept at every doubling.
constexpr std::int64_t first_doubling = 128;

void check(const SchedulerOptions& o) {
  const auto require = [](bool holds, const char* field, std::int64_t value, const std::string& wanted) {
    if (!holds) throw FieldError(field, fmt::format("is {}, must be {}", value, wanted));
  };
  require(o.kv_budget_bytes >= 0, "kv_budget_bytes", o.kv_budget_bytes, "0 or more");
  require(o.max_sequences >= 1, "max_sequences", o.max_sequences, "1 or more");
  require(o.max_queue >= 1, "max_queue", o.max_queue, "1 or more");
  require(o.max_context >= 0 && o.max_context <= max_context, "max_context", o.max_context,
          fmt::format("from 0 to {} tokens", max_context));
  require(o.prefill_tokens_per_step >= 1, "prefill_tokens_per_step", o.prefill_tokens_per_step, "1 or more");
}

}  // namespace

struct Scheduler::Impl {
  Impl(Runner& runner_, const SchedulerOptions& options_)
      : runner(runner_),
        model(runner_.model()),
        options(options_),
        budget(options_.kv_budget_bytes > 0 ? options_.kv_budget_bytes : available_memory()),
        context(options_.max_context > 0 ? options_.max_context : max_context),
        pool(runner_.pool()),
        batch(runner_) {
    if (options.prefix_cache) batch.at_stop = [this](ActiveRequest& request) { keep_prompt(request); };
  }

  Runner& runner;
  const Model& model;
  const SchedulerOptions options;
  const std::int64_t budget, context;
  KvPool& pool;
  PrefixCache cache;
  Batch batch;
  std::deque<std::unique_ptr<ActiveRequest>> queue;     // first come first served
  std::vector<std::unique_ptr<ActiveRequest>> running;  // in the order of their admission
  std::vector<ActiveRequest*> in_step;                  // the same
  std::vector<Event> pending, events;                   // to be told by settle(); told by the last call
  bool full = false;                                    // the head of the queue did not fit, and nobody has left since
  RequestId next_id = 1;
  std::int64_t prefix_queries = 0, prefix_hits = 0, prefix_tokens_reused = 0, steps = 0;

  // ---- memory ----

  // What running requests may still allocate on top of what is in use.  What is in use is counted by the pool, with the
  // pages that several sequences share once; so the two together are what can become real.
  std::int64_t to_come() const {
    std::int64_t bytes = 0;
    for (const auto& request : running) bytes += request->kv_bytes_to_come();
    return bytes;
  }
  std::int64_t n_sequences() const {
    std::int64_t n = 0;
    for (const auto& request : running) n += request->request().n_continuations;
    return n;
  }

  // ---- admission ----

  // Strictly in order: a large request waits for memory at the head of the queue, and nobody overtakes it.
  void admit() {
    while (!queue.empty() && !full) {
      const std::optional<PrefixCache::Match> match = try_fit(*queue.front());
      full = !match;
      if (full) return;
      ActiveRequest& request = *running.emplace_back(std::move(queue.front()));
      queue.pop_front();
      if (looks_up(request)) {
        plan_stops(request, *match);
        ++prefix_queries;
        prefix_hits += match->state != nullptr;
        prefix_tokens_reused += match->n_tokens;
      }
      request.start(match->state != nullptr ? match->state->fork() : runner.sequence());
      events.emplace_back(request.id(), Started{.cached_tokens = match->n_tokens});
    }
  }
  // Log-probabilities of a prompt need all of its logits, so there is nothing to be saved.
  bool looks_up(const ActiveRequest& r) const { return options.prefix_cache && !r.request().score_prompt; }

  // Makes room for a request, if need be at the cache's expense; the state that it begins with, or none if it must
  // wait.
  std::optional<PrefixCache::Match> try_fit(const ActiveRequest& request) {
    if (n_sequences() + request.request().n_continuations > options.max_sequences) return std::nullopt;
    const std::int64_t running_to_come = to_come();
    for (;;) {
      const PrefixCache::Match match = looks_up(request) ? cache.find(request.request().prompt) : PrefixCache::Match{};
      // Pages that the state has filled are in use already; its other pages and constant state are copied.
      const std::int64_t need =
          request.kv_bytes_at_most() - kv_bytes_filled(model.spec, Protocol::hiergen, match.n_tokens, model.kv);
      const std::int64_t left = budget - pool.bytes_in_use() - running_to_come;
      if (need <= left) return match;
      if (cache.empty() || need > left + cache.bytes_alone()) return std::nullopt;
      cache.drop_oldest();
    }
  }

  // ---- what is worth keeping ----

  // A state costs the constant memory of the encoders and a page or so of each growing cache, and cuts a slice of the
  // prompt short; it saves whoever comes with the same beginning from consuming it again.  Kept are, of a prompt,
  //  - its last boundary: for the same prompt again, and for the next turn of a chat whose answer was changed;
  //  - the last boundary that it shares with an earlier text: what two prompts have in common (instructions, examples)
  //    a third one will have, too;
  //  - every doubling: at least half of what the next prompt shares, before it is known what that is.
  // Boundaries are multiples of C_≤L tokens: there no level has units that wait for their chunk, and no `chunk` decoder
  // is inside a group, so that the state is that of the encoders alone.
  void plan_stops(ActiveRequest& request, const PrefixCache::Match& match) {
    const std::int64_t group = model.spec.group_tokens(), n = std::ssize(request.request().prompt);
    const auto boundary = [group](std::int64_t T) { return T / group * group; };
    std::vector<std::int64_t> stops{boundary(n), boundary(match.n_common)};
    for (std::int64_t p = group; p <= n; p *= 2)
      if (p >= first_doubling) stops.push_back(p);
    std::erase_if(stops, [&](std::int64_t p) { return p < min_kept_tokens || p <= match.n_tokens; });
    std::ranges::sort(stops);
    stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
    request.stops.assign(stops.begin(), stops.end());
  }

  void keep_prompt(ActiveRequest& request) {
    const auto& prompt = request.request().prompt;
    const Sequence& sequence = request.prompt();
    const std::int64_t n = sequence.n_tokens;
    if (cache.touch(std::span(prompt).first(n))) return;
    // The state shares all pages, but one that is not full will be copied.
    const std::int64_t cost = kv_bytes_allocated(model.spec, Protocol::hiergen, n, model.kv) -
                              kv_bytes_filled(model.spec, Protocol::hiergen, n, model.kv);
    while (pool.bytes_in_use() + to_come() + cost > budget)
      if (!cache.drop_oldest()) return;
    if (request.kept_text == nullptr) request.kept_text = std::make_shared<const std::vector<std::int32_t>>(prompt);
    cache.keep(request.kept_text, sequence.fork_to_keep());
  }

  // The state after an answer costs nothing: the sequence only changes its owner.  It is exact inside a chunk, too,
  // where it holds the units and the decoders' caches of the chunks in progress.  Several answers to one prompt are not
  // kept: a chat goes on from one of them at most, and they would drive out what others use.
  void keep_answer(const ActiveRequest& request, const Continuation& continuation, Sequence sequence) {
    if (request.request().n_continuations > 1 || sequence.protocol != Protocol::hiergen) return;
    if (sequence.n_tokens < min_kept_tokens) return;
    auto text = request.request().prompt;
    text.insert(text.end(), continuation.tokens.begin(), continuation.tokens.end());
    // The last token was not consumed; of a continuation that was stopped, more than its tokens may have been.
    if (std::ssize(text) < sequence.n_tokens) return;
    text.resize(sequence.n_tokens);
    cache.keep(std::make_shared<const std::vector<std::int32_t>>(std::move(text)), std::move(sequence));
  }

  // ---- the end ----

  // What has ended is told, and its memory given back.
  void settle() {
    for (auto& request : running) {
      if (!request->live()) continue;
      for (Continuation& c : request->continuations()) {
        if (!c.finish || c.told) continue;
        std::optional<Sequence> last = request->release(c, events);
        if (options.prefix_cache && last) keep_answer(*request, c, std::move(*last));
      }
    }
    const auto over = [](const auto& request) { return request->over(); };
    for (auto& request : running)
      if (over(request)) close(*request, events);
    full = std::erase_if(running, over) == 0 && full;
  }
  void close(ActiveRequest& request, std::vector<Event>& out) { request.close(runner.work().weight_bytes_read, out); }
};

Scheduler::Scheduler(Runner& runner, const SchedulerOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(runner, options);
}

Scheduler::~Scheduler() = default;

const Model& Scheduler::model() const { return impl_->model; }

RequestId Scheduler::submit(Request request) {
  Impl& s = *impl_;
  check(request, s.model.spec);
  const std::int64_t n_prompt = std::ssize(request.prompt);
  if (n_prompt > s.context || request.n_tokens > s.context - n_prompt)
    throw InputError(
        fmt::format("{} tokens of prompt and {} to be generated are more than the longest context, {} tokens", n_prompt,
                    request.n_tokens, s.context));
  if (request.n_continuations > s.options.max_sequences)
    throw InputError(fmt::format("{} continuations are asked for, at most {} sequences run at once",
                                 request.n_continuations, s.options.max_sequences));
  auto active = std::make_unique<ActiveRequest>(s.next_id, s.model, std::move(request));
  if (active->kv_bytes_at_most() > s.budget)
    throw InputError(fmt::format(
        "{} continuation{} of {} tokens of prompt and {} to be generated can take {} bytes of KV cache, the "
        "budget is {}",
        active->request().n_continuations, active->request().n_continuations == 1 ? "" : "s", n_prompt,
        active->request().n_tokens, active->kv_bytes_at_most(), s.budget));
  if (std::ssize(s.queue) >= s.options.max_queue)
    throw QueueFull(fmt::format("{} requests wait already; try again later", s.queue.size()));
  s.queue.push_back(std::move(active));
  return s.next_id++;
}

void Scheduler::cancel(RequestId id) {
  Impl& s = *impl_;
  const auto end = [&](auto& requests) {
    const auto found = std::ranges::find_if(requests, [id](const auto& r) { return r->id() == id; });
    if (found == requests.end()) return;
    (*found)->cancel();
    s.close(**found, s.pending);
    requests.erase(found);
    s.full = false;
  };
  end(s.queue);
  end(s.running);
}

void Scheduler::stop(RequestId id, std::size_t continuation, std::int64_t n_tokens) {
  for (const auto& request : impl_->running)
    if (request->id() == id) request->stop(continuation, n_tokens);
}

std::span<const Event> Scheduler::step() {
  Impl& s = *impl_;
  s.events.clear();
  s.admit();
  s.in_step.clear();
  for (const auto& request : s.running)
    if (!request->over()) s.in_step.push_back(request.get());
  if (s.in_step.empty()) return s.events;
  ++s.steps;
  try {
    s.batch.step(s.in_step, s.options.prefill_tokens_per_step, s.events);
  } catch (...) {  // the sequences of the batch are in an unknown state
    for (ActiveRequest* request : s.in_step) request->fail(std::current_exception());
  }
  return s.events;
}

std::span<const Event> Scheduler::settle() {
  Impl& s = *impl_;
  s.events.clear();
  s.events.swap(s.pending);
  s.settle();
  return s.events;
}

bool Scheduler::idle() const { return impl_->queue.empty() && impl_->running.empty() && impl_->pending.empty(); }

Scheduler::Status Scheduler::status() const {
  const Impl& s = *impl_;
  Status status{.queued = std::ssize(s.queue), .kv_budget_bytes = s.budget};
  for (const auto& request : s.running) {
    ++(request->prefilling() ? status.prefilling : status.decoding);
    status.sequences += request->n_live_sequences();
    status.kv_bytes_constant += request->kv_bytes_constant();
  }
  status.kv_bytes_prefix_cache = s.cache.bytes();
  status.kv_bytes_growing = s.pool.bytes_in_use() - status.kv_bytes_constant - status.kv_bytes_prefix_cache;
  status.kv_bytes_reserved = status.kv_bytes_growing + status.kv_bytes_constant + s.to_come();
  status.prefix_queries = s.prefix_queries;
  status.prefix_hits = s.prefix_hits;
  status.prefix_tokens_reused = s.prefix_tokens_reused;
  status.steps = s.steps;
  return status;
}

}  // namespace photon
