#include "serve/server.h"

#include <spdlog/spdlog.h>

#include "serve/loggable.h"

namespace photon {
namespace {

// For clients to hear that their requests are cut off.
constexpr std::chrono::milliseconds cut_off_time{1000};

}  // namespace

Server::Server(const ServeOptions& options)
    : drain_timeout_(options.drain_timeout),
      router_(options.api_keys, options.cors_origins),
      metrics_(options.alias),
      http_(options.host, options.port, options.http_threads, options.http, *this) {
  router_.add("GET", "/health", Access::open, [](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->send(200, "application/json", R"({"status":"ok"})");
  });
  router_.add("GET", "/metrics", Access::keyed, [this](HttpRequest, std::shared_ptr<Responder> responder) {
    metrics_.set_connections(http_.n_connections());
    responder->send(200, "text/plain; version=0.0.4; charset=utf-8", metrics_.text());
  });
}

void Server::ready() { router_.set_phase(Phase::ready); }

void Server::request_stop() {
  if (!stop_.request_stop()) force_.request_stop();
}

void Server::wait() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, stop_.get_token(), [] { return false; });
  }
  router_.set_phase(Phase::draining);
  http_.drain();
  using Clock = std::chrono::steady_clock;
  if (!http_.wait_idle(Clock::now() + drain_timeout_, force_.get_token())) {
    spdlog::warn("requests are cut off: {}", force_.stop_requested() ? "second signal" : "--drain-timeout");
    if (on_cut_off_) {
      on_cut_off_();
      http_.wait_idle(Clock::now() + cut_off_time, std::stop_token());
    }
  }
  http_.close();
}

void Server::admit(const HttpRequest& head, Responder::Headers& headers) { router_.admit(head, headers); }

void Server::handle(HttpRequest request, std::shared_ptr<Responder> responder) {
  router_.handle(std::move(request), std::move(responder));
}

void Server::answered(const AccessRecord& record) {
  metrics_.http_answer(record.status);
  const bool probe = record.path == "/health" && record.status == 200;
  spdlog::log(probe ? spdlog::level::debug : spdlog::level::info, "{} {} {} {:.1f} ms {} bytes {}{}",
              record.method.empty() ? "?" : loggable(record.method), record.path.empty() ? "?" : loggable(record.path),
              record.status, record.ms, record.bytes, record.id, record.complete ? "" : ", not all of it taken");
}

}  // namespace photon
