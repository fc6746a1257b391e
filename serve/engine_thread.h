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
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "engine/scheduler.h"

namespace photon {

/// Hears of one request, on the engine's thread.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  /// Its events in order; the last one is Done.  The answer counts for a TokenChosen: false ends the continuation
  /// there. What it throws ends the request as its failure.
  virtual bool hear(const Event& event) = 0;
};

/// May be called from any thread.
class EngineThread {
 public:
  using OnStatus = std::function<void(const Scheduler::Status& status)>;
  /// @param runner  outlives it, and is the thread's alone
  /// @param on_status  hears of the scheduler's state after each step, on the engine's thread; may be empty
  /// @throws InputError for options that the scheduler refuses.
  EngineThread(Runner& runner, const SchedulerOptions& options, OnStatus on_status = {});
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;
  /// Cancels whatever still runs; every listener has heard Done then.
  ~EngineThread();

  using Ticket = std::uint64_t;
  /// Called on the engine's thread before the listeners hear anything: null if all requests were queued, otherwise why
  /// one of them was not.  None of them runs then, and those queued before it are cancelled.
  using OnSubmitted = std::function<void(std::exception_ptr refusal)>;
  using Listener = std::shared_ptr<RequestListener>;  // kept until it has heard Done
  /// Hands requests over, each with its listener; all or none of them are queued.  Does not wait.
  Ticket submit(std::vector<std::pair<Request, Listener>> requests, OnSubmitted on_submitted);
  /// Ends the requests of a ticket before the next step begins.
  void cancel(Ticket ticket);
  /// Ends all requests that were handed over so far.
  void cancel_all();
  Scheduler::Status status() const;  // after the latest step

 private:
  struct Running {
    Ticket ticket = 0;
    Listener listener;
    std::map<std::size_t, std::int64_t> n_tokens{};  // of each continuation that has any
    std::set<std::size_t> stopped{};                 // continuations that their listener has ended
    std::exception_ptr failure{};                    // what the listener threw
  };
  struct Submission {
    Ticket ticket;
    std::vector<std::pair<Request, Listener>> requests;
    OnSubmitted on_submitted;
  };

  void run(std::stop_token stop);
  void submit_now(Submission submission);
  void cancel_now(Ticket ticket);
  void cancel_all_now();
  void tell(const Event& event);
  void fail_all(std::exception_ptr failure);
  void publish();

  Scheduler scheduler_;
  OnStatus on_status_;
  std::map<RequestId, Running> running_;  // of the engine's thread

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
