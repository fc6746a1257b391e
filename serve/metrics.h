// What the server counts and times, for Prometheus: /metrics.  Names follow vLLM's, with "photon:" before them, so that
// dashboards carry over.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/scheduler.h"

namespace photon {

/// How a request of the API ended.
enum class Outcome {
  stop,       ///< at the end of text or a stop string
  length,     ///< as long as was asked for
  cancelled,  ///< its client went
  refused,    ///< 4xx, and 429 where the queue was full
  failed,     ///< our fault
};
std::string_view to_string(Outcome outcome);

/// May be called from any thread.
class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  using Seconds = std::chrono::duration<double>;
  /// From a request's arrival to its first token.
  void first_token(Protocol protocol, Seconds time);
  /// Between two tokens of one continuation.
  void next_token(Protocol protocol, Seconds time);
  /// An accepted request has ended, after `time` from its arrival.
  void request_done(Protocol protocol, Outcome outcome, const RequestStats& stats, Seconds time);
  /// One that never reached the scheduler.
  void request_refused(Protocol protocol);
  /// An answer to any HTTP request.
  void http_answer(int status);
  void set_connections(std::int64_t n);
  /// The scheduler's state; counts in it only grow.
  void set_status(const Scheduler::Status& status);

  /// The text exposition format, version 0.0.4.
  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace photon
