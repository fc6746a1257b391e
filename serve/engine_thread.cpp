#include "serve/engine_thread.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>

namespace photon {

EngineThread::EngineThread(Runner& runner, const SchedulerOptions& options, OnStatus on_status)
    : scheduler_(runner, options), on_status_(std::move(on_status)) {
  publish();
  thread_ = std::jthread([this](std::stop_token stop) { run(std::move(stop)); });
}

EngineThread::~EngineThread() = default;  // the thread is asked to stop, and joined, first

EngineThread::Ticket EngineThread::submit(std::vector<std::pair<Request, Listener>> requests,
                                          OnSubmitted on_submitted) {
  const std::lock_guard lock(mutex_);
  submissions_.push_back({++latest_, std::move(requests), std::move(on_submitted)});
  news_.notify_one();
  return latest_;
}

void EngineThread::cancel(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  cancellations_.push_back(ticket);
  news_.notify_one();
}

void EngineThread::cancel_all() {
  const std::lock_guard lock(mutex_);
  cancel_all_ = true;
  news_.notify_one();
}

Scheduler::Status EngineThread::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void EngineThread::run(std::stop_token stop) {
  bool idle = true;
  while (!stop.stop_requested()) {
    std::vector<Submission> submissions;
    std::vector<Ticket> cancellations;
    bool cancel_all = false;
    {
      std::unique_lock lock(mutex_);
      if (idle) news_.wait(lock, stop, [&] { return !submissions_.empty() || !cancellations_.empty() || cancel_all_; });
      submissions.swap(submissions_);
      cancellations.swap(cancellations_);
      cancel_all = std::exchange(cancel_all_, false);
    }
    for (Submission& submission : submissions) submit_now(std::move(submission));
    for (const Ticket ticket : cancellations) cancel_now(ticket);
    if (cancel_all) cancel_all_now();
    try {
      for (const Event& event : scheduler_.step()) tell(event);
      for (const Event& event : scheduler_.settle()) tell(event);
    } catch (const std::exception& error) {
      spdlog::error("the engine failed: {}", error.what());
      fail_all(std::current_exception());
    }
    idle = scheduler_.idle();
    publish();
  }
  std::vector<Submission> late;
  {
    const std::lock_guard lock(mutex_);
    late.swap(submissions_);
  }
  for (Submission& submission : late)
    submission.on_submitted(std::make_exception_ptr(Error("the server is shutting down")));
  cancel_all_now();
  for (const Event& event : scheduler_.settle()) tell(event);
}

void EngineThread::submit_now(Submission submission) {
  std::exception_ptr refusal;
  for (auto& [request, listener] : submission.requests) {
    try {
      const RequestId id = scheduler_.submit(std::move(request));
      running_.emplace(id, Running{.ticket = submission.ticket, .listener = std::move(listener)});
    } catch (const std::exception&) {
      refusal = std::current_exception();
      break;
    }
  }
  submission.on_submitted(refusal);
  if (refusal) cancel_now(submission.ticket);
}

void EngineThread::cancel_now(Ticket ticket) {
  for (const auto& [id, running] : running_)
    if (running.ticket == ticket) scheduler_.cancel(id);
}

void EngineThread::cancel_all_now() {
  for (const auto& [id, running] : running_) scheduler_.cancel(id);
}

void EngineThread::tell(const Event& event) {
  const auto found = running_.find(event.request);
  if (found == running_.end()) return;
  auto& [id, running] = *found;
  if (const auto* done = std::get_if<Done>(&event.what)) {
    const Running last = std::move(running);
    running_.erase(found);
    try {
      last.listener->hear(last.failure == nullptr ? event : Event(event.request, Done{done->stats, last.failure}));
    } catch (const std::exception& error) {  // nobody is left who could be told
      spdlog::error("a listener failed at its end: {}", error.what());
    }
    return;
  }
  if (running.failure != nullptr) return;
  const auto* chosen = std::get_if<TokenChosen>(&event.what);
  if (chosen != nullptr && running.stopped.contains(chosen->continuation)) return;  // chosen before its end was known
  try {
    const bool more = running.listener->hear(event);
    if (chosen == nullptr) return;
    const std::int64_t n = running.n_tokens[chosen->continuation] += !chosen->is_eos;
    if (more) return;
    running.stopped.insert(chosen->continuation);
    scheduler_.stop(id, chosen->continuation, n);
  } catch (...) {
    running.failure = std::current_exception();
    scheduler_.cancel(id);
  }
}

// The scheduler itself fails a request, not a step; whatever leaves a step leaves nothing to go on with.
void EngineThread::fail_all(std::exception_ptr failure) {
  cancel_all_now();
  for (const auto& [id, running] : std::exchange(running_, {}))
    running.listener->hear(Event(id, Done{.stats = {}, .failure = failure}));
}

void EngineThread::publish() {
  const Scheduler::Status status = scheduler_.status();
  if (on_status_) on_status_(status);
  const std::lock_guard lock(mutex_);
  status_ = status;
}

}  // namespace photon
