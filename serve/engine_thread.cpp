#include "serve/engine_thread.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>

namespace photon {

// A job in the scheduler: passes its news on, and knows whether it has ended.
class EngineThread::Running : public RequestListener {
 public:
  explicit Running(std::shared_ptr<RequestListener> listener) : listener_(std::move(listener)) {}

  void on_start(std::int64_t cached_tokens) override { listener_->on_start(cached_tokens); }
  void on_prompt_logprobs(std::span<const TokenLogprob> logprobs) override { listener_->on_prompt_logprobs(logprobs); }
  bool on_token(std::size_t continuation, std::int32_t token, const TokenLogprob* logprob) override {
    return listener_->on_token(continuation, token, logprob);
  }
  void on_eos(std::size_t continuation, std::int32_t token, const TokenLogprob* logprob) override {
    listener_->on_eos(continuation, token, logprob);
  }
  void on_finish(std::size_t continuation, FinishReason reason) override { listener_->on_finish(continuation, reason); }
  void on_done(const RequestStats& stats, const std::string* error) override {
    if (std::exchange(done_, true)) return;
    listener_->on_done(stats, error);
  }

  Scheduler::RequestId id = 0;
  bool done() const { return done_; }

 private:
  std::shared_ptr<RequestListener> listener_;
  bool done_ = false;
};

EngineThread::EngineThread(const Model& model, const SchedulerOptions& options, OnStatus on_status)
    : scheduler_(model, options), on_status_(std::move(on_status)) {
  publish();
  thread_ = std::jthread([this](std::stop_token stop) { run(std::move(stop)); });
}

EngineThread::~EngineThread() = default;  // the thread is asked to stop, and joined, first

EngineThread::Ticket EngineThread::submit(std::vector<Job> jobs, OnSubmitted on_submitted) {
  const std::lock_guard lock(mutex_);
  submissions_.push_back({++latest_, std::move(jobs), std::move(on_submitted)});
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
      idle = !scheduler_.step();
    } catch (const std::exception& error) {
      spdlog::error("the engine failed: {}", error.what());
      fail_all(error.what());
      idle = true;
    }
    std::erase_if(running_, [](const auto& job) { return job.second->done(); });
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
}

void EngineThread::submit_now(Submission submission) {
  std::exception_ptr refusal;
  for (Job& job : submission.jobs) {
    auto running = std::make_unique<Running>(std::move(job.listener));
    try {
      running->id = scheduler_.submit(std::move(job.request), *running);
      running_.emplace(submission.ticket, std::move(running));
    } catch (const std::exception&) {
      refusal = std::current_exception();
      break;
    }
  }
  submission.on_submitted(refusal);
  if (refusal) cancel_now(submission.ticket);
}

void EngineThread::cancel_now(Ticket ticket) {
  const auto [first, last] = running_.equal_range(ticket);
  for (auto job = first; job != last; ++job) scheduler_.cancel(job->second->id);
}

void EngineThread::cancel_all_now() {
  for (auto& [ticket, job] : running_) scheduler_.cancel(job->id);
}

// The scheduler itself fails a request, not a step; whatever leaves a step leaves nothing to go on with.
void EngineThread::fail_all(const std::string& why) {
  for (auto& [ticket, job] : running_) {
    job->on_done({}, &why);
    scheduler_.cancel(job->id);
  }
}

void EngineThread::publish() {
  const Scheduler::Status status = scheduler_.status();
  if (on_status_) on_status_(status);
  const std::lock_guard lock(mutex_);
  status_ = status;
}

}  // namespace photon
