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
#include "engine/hierarchy.h"
#include "engine/job.h"
#include "engine/kv_cache.h"
#include "engine/prefix_cache.h"

namespace photon {
namespace {

// Below this a prompt is consumed sooner than a state would pay for its memory.
constexpr std::int64_t min_kept_tokens = 32;
// From here on a state is kept at every doubling.
constexpr std::int64_t first_doubling = 128;

void check(const SchedulerOptions& o) {
  const auto require = [](bool holds, const char* what, std::int64_t value, const char* wanted) {
    if (!holds) throw InputError(fmt::format("{} is {}, must be {}", what, value, wanted));
  };
  require(o.kv_budget_bytes >= 0, "the KV budget in bytes", o.kv_budget_bytes, "0 or more");
  require(o.max_sequences >= 1, "the number of sequences", o.max_sequences, "1 or more");
  require(o.max_queue >= 1, "the length of the queue", o.max_queue, "1 or more");
  require(o.max_context >= 0 && o.max_context <= max_context, "the longest context", o.max_context,
          fmt::format("from 0 to {} tokens", max_context).c_str());
  require(o.prefill_tokens_per_step >= 1, "the number of prompt tokens per step", o.prefill_tokens_per_step,
          "1 or more");
}

}  // namespace

struct Scheduler::Impl {
  Impl(const Model& model_, const SchedulerOptions& options_)
      : model(model_),
        options(options_),
        budget(options_.kv_budget_bytes > 0 ? options_.kv_budget_bytes : available_memory()),
        context(options_.max_context > 0 ? options_.max_context : max_context),
        hierarchy(model_),
        batch(hierarchy) {
    if (!options.prefix_cache) return;
    batch.at_stop = [this](Job& job) { keep_prompt(job); };
    batch.at_end = [this](Job& job, Stream& stream, Sequence last) { keep_answer(job, stream, std::move(last)); };
  }

  const Model& model;
  const SchedulerOptions options;
  const std::int64_t budget, context;
  KvPool pool;  // outlives all sequences
  Hierarchy hierarchy;
  PrefixCache cache;
  Batch batch;
  std::deque<std::unique_ptr<Job>> queue;     // first come first served
  std::vector<std::unique_ptr<Job>> running;  // in the order of their admission
  std::vector<Job*> jobs;                     // the same
  bool stepping = false;
  bool full = false;  // the head of the queue did not fit, and nobody has left since
  std::uint64_t next_id = 1;
  std::int64_t prefix_queries = 0, prefix_hits = 0, prefix_tokens_reused = 0, steps = 0;

  // ---- memory ----

  // What running requests may still allocate on top of what is in use.  What is in use is counted by the pool, with the
  // pages that several sequences share once; so the two together are what can become real.
  std::int64_t to_come() const {
    std::int64_t bytes = 0;
    for (const auto& job : running) bytes += job->kv_bytes_to_come();
    return bytes;
  }
  std::int64_t n_sequences() const {
    std::int64_t n = 0;
    for (const auto& job : running) n += job->request().n_continuations;
    return n;
  }

  // ---- admission ----

  // Strictly in order: a large request waits for memory at the head of the queue, and nobody overtakes it.
  void admit() {
    while (!queue.empty() && !full) {
      const std::optional<PrefixCache::Match> match = try_fit(*queue.front());
      full = !match;
      if (full) return;
      Job& job = *running.emplace_back(std::move(queue.front()));
      queue.pop_front();
      if (looks_up(job)) {
        plan_stops(job, *match);
        ++prefix_queries;
        prefix_hits += match->state != nullptr;
        prefix_tokens_reused += match->n_tokens;
      }
      job.start(match->state != nullptr ? match->state->fork() : Sequence(model, pool));
    }
  }
  // Log-probabilities of a prompt need all of its logits, so there is nothing to be saved.
  bool looks_up(const Job& job) const { return options.prefix_cache && !job.request().score_prompt; }

  // Makes room for a request, if need be at the cache's expense; the state that it begins with, or none if it must
  // wait.
  std::optional<PrefixCache::Match> try_fit(const Job& job) {
    if (n_sequences() + job.request().n_continuations > options.max_sequences) return std::nullopt;
    const std::int64_t running_to_come = to_come();
    for (;;) {
      const PrefixCache::Match match = looks_up(job) ? cache.find(job.request().prompt) : PrefixCache::Match{};
      // Pages that the state has filled are in use already; its other pages and constant state are copied.
      const std::int64_t need =
          job.kv_bytes_at_most() - kv_bytes_filled(model.spec, Protocol::hiergen, match.n_tokens, model.kv);
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
  void plan_stops(Job& job, const PrefixCache::Match& match) {
    const std::int64_t group = model.spec.chunk_tokens(model.spec.n_levels()), n = std::ssize(job.request().prompt);
    const auto boundary = [group](std::int64_t T) { return T / group * group; };
    std::vector<std::int64_t> stops{boundary(n), boundary(match.n_common)};
    for (std::int64_t p = group; p <= n; p *= 2)
      if (p >= first_doubling) stops.push_back(p);
    std::erase_if(stops, [&](std::int64_t p) { return p < min_kept_tokens || p <= match.n_tokens; });
    std::ranges::sort(stops);
    stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
    job.stops.assign(stops.begin(), stops.end());
  }

  void keep_prompt(Job& job) {
    const auto& prompt = job.request().prompt;
    const Sequence& sequence = job.prompt();
    const std::int64_t n = sequence.n_tokens;
    if (cache.touch(std::span(prompt).first(static_cast<std::size_t>(n)))) return;
    // The state shares all pages, but one that is not full will be copied.
    const std::int64_t cost = kv_bytes_allocated(model.spec, Protocol::hiergen, n, model.kv) -
                              kv_bytes_filled(model.spec, Protocol::hiergen, n, model.kv);
    while (pool.bytes_in_use() + to_come() + cost > budget)
      if (!cache.drop_oldest()) return;
    if (job.kept_text == nullptr) job.kept_text = std::make_shared<const std::vector<std::int32_t>>(prompt);
    cache.keep(job.kept_text, sequence.fork_to_keep(), /*predicted=*/false);
  }

  // The state after an answer costs nothing: the sequence only changes its owner.  It is exact inside a chunk, too,
  // where it holds the units and the decoders' caches of the chunks in progress.  Several answers to one prompt are not
  // kept: a chat goes on from one of them at most, and they would drive out what others use.
  void keep_answer(Job& job, Stream& stream, Sequence sequence) {
    if (job.request().n_continuations > 1 || sequence.protocol != Protocol::hiergen) return;
    if (sequence.n_tokens < min_kept_tokens) return;
    auto text = job.request().prompt;
    text.insert(text.end(), stream.generated.begin(), stream.generated.end());
    text.resize(static_cast<std::size_t>(sequence.n_tokens));  // the last token was not consumed
    cache.keep(std::make_shared<const std::vector<std::int32_t>>(std::move(text)), std::move(sequence),
               /*predicted=*/true);
  }

  // ---- the end ----

  // Tells everyone who is over.  Listeners may submit and cancel meanwhile.
  void close_ended() {
    for (;;) {
      const auto over = std::ranges::find_if(running, [](const auto& job) { return job->over(); });
      if (over == running.end()) return;
      const std::unique_ptr<Job> job = std::move(*over);
      running.erase(over);
      job->close();
      full = false;
    }
  }
};

Scheduler::Scheduler(const Model& model, const SchedulerOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(model, options);
}

Scheduler::~Scheduler() {
  Impl& s = *impl_;
  while (!s.queue.empty()) cancel(s.queue.front()->id());
  while (!s.running.empty()) cancel(s.running.front()->id());
}

const Model& Scheduler::model() const { return impl_->model; }

Scheduler::RequestId Scheduler::submit(Request request, RequestListener& listener) {
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
  auto job = std::make_unique<Job>(s.next_id, s.model, std::move(request), listener);
  if (job->kv_bytes_at_most() > s.budget)
    throw InputError(fmt::format(
        "{} continuation{} of {} tokens of prompt and {} to be generated can take {} bytes of KV cache, the "
        "budget is {}",
        job->request().n_continuations, job->request().n_continuations == 1 ? "" : "s", n_prompt,
        job->request().n_tokens, job->kv_bytes_at_most(), s.budget));
  if (std::ssize(s.queue) >= s.options.max_queue)
    throw QueueFull(fmt::format("{} requests wait already; try again later", s.queue.size()));
  s.queue.push_back(std::move(job));
  return s.next_id++;
}

void Scheduler::cancel(RequestId id) {
  Impl& s = *impl_;
  const auto is_it = [id](const auto& job) { return job->id() == id; };
  if (const auto waiting = std::ranges::find_if(s.queue, is_it); waiting != s.queue.end()) {
    const std::unique_ptr<Job> job = std::move(*waiting);
    s.queue.erase(waiting);
    job->cancel();
    job->close();
    s.full = false;
  } else if (const auto running = std::ranges::find_if(s.running, is_it); running != s.running.end()) {
    (*running)->cancel();
    if (!s.stepping) s.close_ended();
  }
}

bool Scheduler::step() {
  Impl& s = *impl_;
  s.stepping = true;
  s.admit();
  s.jobs.clear();
  for (const auto& job : s.running)
    if (!job->over()) s.jobs.push_back(job.get());
  const bool any = !s.running.empty();
  try {
    s.batch.step(s.jobs, s.options.prefill_tokens_per_step);
  } catch (...) {  // the sequences of the batch are in an unknown state
    for (Job* job : s.jobs) job->fail(std::current_exception());
  }
  s.stepping = false;
  s.close_ended();
  s.steps += any;
  return any;
}

Scheduler::Status Scheduler::status() const {
  const Impl& s = *impl_;
  Status status{.queued = std::ssize(s.queue), .kv_budget_bytes = s.budget};
  for (const auto& job : s.running) {
    ++(job->prefilling() ? status.prefilling : status.decoding);
    status.sequences += job->n_live_sequences();
    status.kv_bytes_constant += job->kv_bytes_constant();
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
