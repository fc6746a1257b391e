// The server's life: it listens before there is a model, serves, and ends in good order.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <utility>

#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/router.h"

namespace photon {

/// Answers 503 from its construction until ready(); then /health, /metrics and the routes that were added.
class Server : private HttpApplication {
 public:
  /// Listens.  @throws InputError where it cannot.
  explicit Server(const ServeOptions& options);

  Router& router() { return router_; }  // to add routes to, before ready()
  Metrics& metrics() { return metrics_; }
  std::string url() const { return http_.url(); }
  std::uint16_t port() const { return http_.port(); }
  bool is_local() const { return http_.is_local(); }
  bool loading() const { return router_.phase() == Phase::loading; }

  /// Called once, by wait(), when requests are cut off: answers them all, soon.
  void on_cut_off(std::function<void()> answer_all) { on_cut_off_ = std::move(answer_all); }
  void ready();
  /// The first time: running requests may end within the drain timeout, new ones are refused.  The second time:
  /// what runs is answered with an error, and everything ends.  From any thread.
  void request_stop();
  /// Serves until a stop is asked for and done.  Afterwards no handler is called any more.
  void wait();

 private:
  void admit(const HttpRequest& head, Responder::Headers& headers) override;
  void handle(HttpRequest request, std::shared_ptr<Responder> responder) override;
  void answered(const AccessRecord& record) override;

  const std::chrono::milliseconds drain_timeout_;
  Router router_;
  Metrics metrics_;
  std::function<void()> on_cut_off_;
  std::stop_source stop_, force_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  HttpServer http_;  // last: it calls the others
};

}  // namespace photon
