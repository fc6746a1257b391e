#include "serve/server.h"

#include <thread>

#include "serve/errors.h"
#include "serve/http_testing.h"
#include "serve/loggable.h"

namespace photon {
namespace {

using namespace testing_support;

/// A server that holds what is asked at /held, on a free port, waited for by a thread of its own.
struct Running {
  explicit Running(std::chrono::milliseconds drain_timeout = patience, std::vector<std::string> keys = {})
      : server({.port = 0, .api_keys = std::move(keys), .alias = "a-model", .drain_timeout = drain_timeout}) {
    server.router().add("GET", "/held", Access::open, [this](HttpRequest, std::shared_ptr<Responder> responder) {
      responder->on_disconnect([this] { gone.set(); });
      held = std::move(responder);
      arrived.set();
    });
  }
  ~Running() {
    server.request_stop();
    server.request_stop();
  }
  void run() {
    server.ready();
    thread = std::jthread([this] {
      server.wait();
      ended.set();
    });
  }
  Client client() { return Client(server.port()); }
  int status(const std::string& path) { return client().ask(get(path)).status; }

  Server server;
  std::shared_ptr<Responder> held;
  Signal arrived, gone, ended;
  std::jthread thread;
};

TEST(Server, IsThereBeforeTheModel) {
  Running running;
  const HttpAnswer loading = running.client().ask(get("/health"));
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.body,
            R"({"error":{"message":"Loading model","type":"unavailable_error","param":null,"code":503}})");
  EXPECT_TRUE(loading.headers.contains("retry-after"));
  EXPECT_EQ(running.status("/held"), 503);
  running.run();
  const HttpAnswer ready = running.client().ask(get("/health"));
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(ready.body, R"({"status":"ok"})");
  running.server.request_stop();
  EXPECT_TRUE(running.ended.wait());
}

TEST(Server, MetricsNeedTheKeyAndHealthDoesNot) {
  Running running(patience, {"key"});
  running.run();
  EXPECT_EQ(running.status("/health"), 200);
  Client client = running.client();
  EXPECT_EQ(client.ask(get("/metrics")).status, 401);
  const HttpAnswer metrics = client.ask(get("/metrics", "authorization: Bearer key\r\n"));
  EXPECT_EQ(metrics.status, 200);
  EXPECT_NE(metrics.body.find(R"(photon:http_responses_total{model_name="a-model",status="401"} 1)"),
            std::string::npos);
}

TEST(Server, DrainsBeforeItEnds) {
  Running running;
  running.run();
  Client busy = running.client(), other = running.client();
  EXPECT_EQ(other.ask(get("/health")).status, 200);
  busy.send(get("/held"));
  ASSERT_TRUE(running.arrived.wait());
  running.server.request_stop();
  EXPECT_TRUE(other.ends());
  HttpAnswer refused;  // once the thread that waits has heard of the stop
  ASSERT_TRUE(eventually([&] { return (refused = running.client().ask(get("/health"))).status == 503; }));
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(running.ended.count(), 0);
  running.held->send(200, "text/plain", "done");
  EXPECT_EQ(busy.read_answer().body, "done");
  EXPECT_TRUE(running.ended.wait());
  EXPECT_EQ(running.gone.count(), 0);
}

TEST(Server, DrainingHasADeadline) {
  Running running(/*drain_timeout=*/50ms);
  running.run();
  Client busy = running.client();
  busy.send(get("/held"));
  ASSERT_TRUE(running.arrived.wait());
  running.server.request_stop();
  EXPECT_TRUE(busy.ends());
  EXPECT_TRUE(running.ended.wait());
  EXPECT_EQ(running.gone.count(), 1);
}

TEST(Server, TheSecondStopWaitsForNobody) {
  Running running;
  running.run();
  Client busy = running.client();
  busy.send(get("/held"));
  ASSERT_TRUE(running.arrived.wait());
  running.server.request_stop();
  EXPECT_FALSE(busy.receive(50ms));
  running.server.request_stop();
  EXPECT_TRUE(running.ended.wait());
  EXPECT_EQ(running.gone.count(), 1);
}

TEST(Server, AStopBeforeItWaitsIsNotLost) {
  Running running;
  running.server.request_stop();
  running.run();
  EXPECT_TRUE(running.ended.wait());
}

TEST(Loggable, HoldsNothingThatATerminalOrAParserWouldTakeForItself) {
  EXPECT_EQ(loggable("/v1/completions"), "/v1/completions");
  EXPECT_EQ(loggable("/a\nb\x1b[31m \\\xc3\xa9\x7f"), "/a\\x0ab\\x1b[31m\\x20\\x5c\\xc3\\xa9\\x7f");
  EXPECT_EQ(loggable(std::string(1000, 'a')), std::string(200, 'a').append("..."));
}

}  // namespace
}  // namespace photon
