// The one thread that owns the scheduler: it steps while there is work, and takes requests and cancellations between
// two steps.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/scheduler.h"

namespace photon {

/// May be called from any thread.
class EngineThread {
 public:
  using OnStatus = std::function<void(const Scheduler::Status& status)>;
  /// @param model  outlives it
  /// @param on_status  hears of the scheduler's state after each step, on the engine's thread; may be empty
  /// @throws InputError for options that the scheduler refuses.
  EngineThread(const Model& model, const SchedulerOptions& options, OnStatus on_status = {});
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;
  /// Cancels whatever still runs; every listener has heard on_done() then.
  ~EngineThread();

  struct Job {
    Request request;
    std::shared_ptr<RequestListener> listener;  // kept until its on_done()
  };
  using Ticket = std::uint64_t;
  /// Called on the engine's thread before the listeners hear anything: null if all jobs were queued, otherwise why one
  /// of them was not.  None of them runs then, and those queued before it only hear on_done().
  using OnSubmitted = std::function<void(std::exception_ptr refusal)>;
  /// Hands jobs over; all or none of them are queued.  Does not wait.
  Ticket submit(std::vector<Job> jobs, OnSubmitted on_submitted);
  /// Ends the jobs of a ticket before the next step begins.
  void cancel(Ticket ticket);
  /// Ends all jobs that were handed over so far.
  void cancel_all();
  Scheduler::Status status() const;  // after the latest step

 private:
  class Running;
  struct Submission {
    Ticket ticket;
    std::vector<Job> jobs;
    OnSubmitted on_submitted;
  };

  void run(std::stop_token stop);
  void submit_now(Submission submission);
  void cancel_now(Ticket ticket);
  void cancel_all_now();
  void fail_all(const std::string& why);
  void publish();

  Scheduler scheduler_;
  OnStatus on_status_;
  std::multimap<Ticket, std::unique_ptr<Running>> running_;  // of the engine's thread

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable_any news_;
  std::vector<Submission> submissions_;
  std::vector<Ticket> cancellations_;
  bool cancel_all_ = false;
  Ticket latest_ = 0;
  Scheduler::Status status_;

  std::jthread thread_;  // last: it uses the others
};

}  // namespace photon
