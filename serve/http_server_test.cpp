#include "serve/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "serve/errors.h"
#include "serve/http_testing.h"

namespace photon {
namespace {

using namespace testing_support;

struct TestServer {
  explicit TestServer(HttpHandler handler, const HttpLimits& limits = {}, Application::Admit admit = {})
      : application(std::move(handler), std::move(admit)), http("127.0.0.1", 0, 2, limits, application) {}
  Client client(int receive_buffer = 0) { return Client(http.port(), receive_buffer); }

  Application application;
  HttpServer http;
};

/// Takes responders and lets the test answer.
class Held {
 public:
  HttpHandler handler() {
    return [this](HttpRequest request, std::shared_ptr<Responder> responder) {
      responder->on_disconnect([this] { gone.set(); });
      {
        const std::scoped_lock lock(mutex_);
        requests_.emplace_back(request.path, std::move(responder));
      }
      arrived.set();
    };
  }
  using Request = std::pair<std::string, std::shared_ptr<Responder>>;  // its path
  /// The latest of them.
  Request take() {
    const std::scoped_lock lock(mutex_);
    const Request latest = requests_.back();
    requests_.pop_back();
    return latest;
  }

  Signal arrived, gone;

 private:
  std::mutex mutex_;
  std::vector<Request> requests_;
};

void expect_error(const HttpAnswer& answer, int status) {
  EXPECT_EQ(answer.status, status) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  const auto error = nlohmann::json::parse(answer.body).at("error");
  EXPECT_TRUE(error.at("message").is_string() && error.at("type").is_string());
  EXPECT_TRUE(error.contains("param") && error.contains("code"));
}

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  TestServer server(echo);
  Client client = server.client();
  const HttpAnswer first = client.ask(post("/a%20b?c=d", "body"));
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "POST /a b body");
  EXPECT_EQ(first.headers.at("connection"), "keep-alive");
  const HttpAnswer second = client.ask(get("/again"));
  EXPECT_EQ(second.body, "GET /again ");
  EXPECT_NE(first.headers.at("x-request-id"), second.headers.at("x-request-id"));
  EXPECT_EQ(server.http.n_connections(), 1);
}

TEST(HttpServer, ClosesWhereTheClientWantsItOrSpeaksHttp10) {
  TestServer server(echo);
  for (const std::string& request : {get("/", "connection: close\r\n"), std::string("GET / HTTP/1.0\r\n\r\n")}) {
    Client client = server.client();
    const HttpAnswer answer = client.ask(request);
    EXPECT_EQ(answer.body, "GET / ");
    EXPECT_EQ(answer.headers.at("connection"), "close");
    EXPECT_TRUE(client.ends());
  }
  Client client = server.client();
  EXPECT_EQ(client.ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").headers.at("connection"), "keep-alive");
  EXPECT_EQ(client.ask("GET / HTTP/1.0\r\n\r\n").status, 200);
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  Held held;
  TestServer server(held.handler());
  Client client = server.client();
  client.send(get("/1") + post("/2", "x") + get("/3"));
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(held.arrived.wait(i));
    EXPECT_EQ(held.arrived.count(), i) << "the next may begin when the one before it is answered";
    const auto [path, responder] = held.take();
    responder->send(200, "text/plain", path);
    EXPECT_EQ(client.read_answer().body, fmt::format("/{}", i));
  }
  EXPECT_EQ(held.gone.count(), 0);
}

TEST(HttpServer, MoreMayBePipelinedThanIsReadAhead) {
  Held held;
  TestServer server(held.handler());
  std::string many;
  for (int i = 0; i < 3'000; ++i) many += get("/");
  Client client = server.client();
  client.send(get("/") + many);
  for (int i = 1; i <= 3'001; ++i) {
    ASSERT_TRUE(held.arrived.wait(i));
    held.take().second->send(200, "text/plain", "x");
  }
  for (int i = 0; i <= 3'000; ++i) ASSERT_EQ(client.read_answer().body, "x");
  client.send(get("/") + many);
  ASSERT_TRUE(held.arrived.wait(3'002));
  client.reset();
  EXPECT_TRUE(held.gone.wait());
}

TEST(HttpServer, HeadHasTheHeadersOfTheAnswerAlone) {
  TestServer server(echo);
  Client client = server.client();
  const HttpAnswer answer = client.ask("HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n");
  EXPECT_EQ(answer.headers.at("content-length"), "8");
  EXPECT_EQ(client.ask(get("/")).body, "GET / ");
}

void three_events(HttpRequest, std::shared_ptr<Responder> responder) {
  responder->start_events({{"x-mine", "1"}});
  for (const char* event : {"data: a\n\n", "data: b\n\n", "", "data: [DONE]\n\n"}) responder->write(event);
  responder->finish();
}

TEST(HttpServer, EventsAreAChunkedStream) {
  TestServer server(three_events);
  Client client = server.client();
  const HttpAnswer answer = client.ask(get("/"));
  EXPECT_EQ(answer.body, "data: a\n\ndata: b\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(answer.whole);
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(answer.headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(answer.headers.at("x-mine"), "1");
  EXPECT_TRUE(client.ask("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").whole);
  EXPECT_EQ(client.ask(get("/")).status, 200);
  const HttpAnswer old = client.ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  EXPECT_FALSE(old.headers.contains("transfer-encoding"));
  EXPECT_EQ(old.body, answer.body);
}

TEST(HttpServer, ContinueIsSentWhereItIsWaitedFor) {
  TestServer server(echo);
  Client client = server.client();
  EXPECT_EQ(client.ask("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n").status, 100);
  EXPECT_EQ(client.ask("ab").body, "POST / ab");
  EXPECT_EQ(client.ask(post("/", "cd", "expect: 100-continue\r\n")).body, "POST / cd");  // it did not wait
}

TEST(HttpServer, ChunkedBodiesAreJoined) {
  TestServer server(echo);
  Client client = server.client();
  const std::string head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
  EXPECT_EQ(client.ask(head + "2\r\nab\r\n3;x=y\r\ncde\r\n0\r\ntrailer: 1\r\n\r\n").body, "POST / abcde");
  client.send(head);
  for (const char c : std::string("1\r\nf\r\n1\r\ng\r\n0\r\n\r\n")) client.send({&c, 1});
  EXPECT_EQ(client.read_answer().body, "POST / fg");
}

// ---- requests that are none ----

TEST(HttpServer, WhatIsNoRequestIsRefusedAndTheConnectionEnds) {
  TestServer server(echo, {.header_bytes = 1000, .n_headers = 5});
  const std::string chunked = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
  const std::string long_text(2000, 'a');
  std::string many_headers = "GET / HTTP/1.1\r\nhost: x\r\n";
  for (int i = 0; i < 6; ++i) many_headers += "a: b\r\n";
  const std::vector<std::pair<std::string, int>> table{
      {"\x16\x03\x01\x02\x01\x01", 400},  // TLS
      {"GET /\r\n\r\n", 400},             // HTTP/0.9
      {"GET / HTTP/2.0\r\n\r\n", 400},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 400},
      {"GET x HTTP/1.1\r\nhost: x\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nhost: x\r\n\r\n", 400},
      {"GET /% HTTP/1.1\r\nhost: x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no host
      {"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nAuthorization: b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nhost: x\nb: c\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nhost: x\r\na: \x01\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1x\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\na", 400},
      {"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nhost: x\r\n\r\n", 411},
      {"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nexpect: more\r\n\r\n", 417},
      {chunked + "-2\r\n", 400},
      {chunked + "g\r\n", 400},
      {chunked + "\r\n", 400},
      {chunked + "2\r\nabcd\r\n", 400},
      {chunked + "1;" + long_text, 400},
      {chunked + "0\r\ntrailer: " + long_text, 400},
      {chunked + "ffffffffffffffff\r\n", 413},
      {"GET /" + long_text + " HTTP/1.1\r\nhost: x\r\n\r\n", 414},
      {long_text, 414},
      {"GET / HTTP/1.1\r\nhost: x\r\na: " + long_text, 431},
      {many_headers + "\r\n", 431},
  };
  for (const auto& [request, status] : table) {
    SCOPED_TRACE(request.substr(0, 100));
    Client client = server.client();
    const HttpAnswer answer = client.ask(request);
    expect_error(answer, status);
    EXPECT_EQ(answer.headers.at("connection"), "close");
    client.send(get("/hidden"));
    EXPECT_TRUE(client.ends());
  }
  EXPECT_EQ(server.client().ask(get("/")).status, 200);
  for (const auto& record : server.application.records()) EXPECT_NE(record.request, "GET /hidden");
}

TEST(HttpServer, NothingIsAnsweredAfterAnError) {
  TestServer server(echo);
  Client client = server.client();
  client.send(get("/good") + "nonsense\r\n\r\n" + get("/hidden"));
  EXPECT_EQ(client.read_answer().body, "GET /good ");
  EXPECT_EQ(client.read_answer().status, 400);
  EXPECT_TRUE(client.ends());
}

TEST(HttpServer, BodiesBeyondTheLimitAreRefused) {
  TestServer server(echo, {.body_bytes = 1000});
  EXPECT_EQ(server.client().ask(post("/", std::string(1000, 'a'))).status, 200);
  // Before it is sent, …
  expect_error(server.client().ask("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"), 413);
  // … with an offer to wait, …
  expect_error(
      server.client().ask("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\nexpect: 100-continue\r\n\r\n"),
      413);
  // … or in pieces: the answer can be read although more was sent than the server took.
  const std::string chunk = "200\r\n" + std::string(512, 'a') + "\r\n";
  std::string request = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
  for (int i = 0; i < 100; ++i) request += chunk;
  expect_error(server.client().ask(request), 413);
}

TEST(HttpServer, BodiesOfAllConnectionsTogetherAreBounded) {
  TestServer server(echo, {.buffered_body_bytes = 10'000});
  Client first = server.client(), second = server.client();
  const std::string half(8'000, 'a');
  const std::string head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9000\r\n\r\n";
  EXPECT_EQ(first.ask(head).status, 100);
  EXPECT_EQ(second.ask(head).status, 100);
  first.send(half), second.send(half);
  Client& refused = first.receive(500ms) ? first : second;  // whichever came later
  Client& other = &refused == &first ? second : first;
  const HttpAnswer answer = refused.read_answer();
  expect_error(answer, 503);
  EXPECT_TRUE(answer.headers.contains("retry-after"));
  EXPECT_EQ(other.ask(std::string(1'000, 'b')).status, 200);
  EXPECT_EQ(server.client().ask(post("/", std::string(9'000, 'a'))).status, 200) << "what was counted is given back";
}

TEST(HttpServer, ARefusalBeforeTheBodyIsSentAtOnce) {
  const auto admit = [](const HttpRequest& head, Responder::Headers& headers) {
    headers.emplace_back("x-mine", "1");
    if (head.path == "/closed") throw ApiError(401, "no", {}, "invalid_api_key");
  };
  TestServer server(echo, {}, admit);
  Client client = server.client();
  HttpAnswer answer = client.ask(get("/closed"));
  expect_error(answer, 401);
  EXPECT_EQ(answer.headers.at("x-mine"), "1");
  EXPECT_EQ(answer.headers.at("connection"), "keep-alive") << "nothing else was sent";
  EXPECT_EQ(client.ask(get("/open")).headers.at("x-mine"), "1");
  answer = client.ask("POST /closed HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
  expect_error(answer, 401);
  EXPECT_TRUE(client.ends());
}

// ---- time ----

TEST(HttpServer, SlowHeadersAndBodiesEndWith408) {
  TestServer server(echo, {.header_timeout = 100ms, .body_timeout = 100ms});
  for (const std::string request : {"GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n",
                                    "POST / HTTP/1.1\r\nhost: x\r\n"
                                    "content-length: 5\r\n\r\nab"}) {
    Client client = server.client();
    expect_error(client.ask(request), 408);
    EXPECT_TRUE(client.ends());
  }
}

TEST(HttpServer, AByteNowAndThenDoesNotPostponeTheEnd) {
  TestServer server(echo, {.header_timeout = 150ms, .body_timeout = 150ms});
  for (const std::string request :
       {"GET / HTTP/1.1\r\na: ", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"}) {
    Client client = server.client();
    const auto begin = std::chrono::steady_clock::now();
    client.send(request);
    while (!client.receive(10ms) && std::chrono::steady_clock::now() < begin + patience) client.send("a");
    expect_error(client.read_answer(), 408);
  }
}

TEST(HttpServer, ALargeBodyMayTakeLongerIfItKeepsComing) {
  TestServer server(echo, {.body_timeout = 200ms, .progress_bytes = 1000});
  Client client = server.client();
  const auto begin = std::chrono::steady_clock::now();
  client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(20ms);
    ASSERT_TRUE(client.send(std::string(1000, 'a')));
  }
  EXPECT_EQ(client.read_answer().status, 200);
  EXPECT_GT(std::chrono::steady_clock::now() - begin, 200ms);
}

TEST(HttpServer, IdleConnectionsEndQuietly) {
  TestServer server(echo, {.idle_timeout = 100ms});
  Client fresh = server.client(), used = server.client();
  EXPECT_EQ(used.ask(get("/")).status, 200);
  EXPECT_TRUE(fresh.ends());
  EXPECT_TRUE(used.ends());
}

TEST(HttpServer, AHandlerMayTakeItsTime) {
  Held held;
  TestServer server(held.handler(),
                    {.idle_timeout = 50ms, .header_timeout = 50ms, .body_timeout = 50ms, .write_timeout = 50ms});
  Client client = server.client();
  client.send(post("/", "a"));
  ASSERT_TRUE(held.arrived.wait());
  EXPECT_FALSE(client.receive(200ms));
  held.take().second->send(200, "text/plain", "late");
  EXPECT_EQ(client.read_answer().body, "late");
}

TEST(HttpServer, AReaderThatTakesNothingIsDropped) {
  Held held;
  TestServer server(held.handler(), {.write_timeout = 150ms});
  Client client = server.client(/*receive_buffer=*/4096);
  client.send(get("/whole"));
  ASSERT_TRUE(held.arrived.wait());
  const auto responder = held.take().second;
  responder->send(200, "text/plain", std::string(std::size_t{64} << 20, 'a'));
  ASSERT_TRUE(server.application.n_answered.wait());
  EXPECT_EQ(server.application.records()[0], (Application::Record{"GET /whole", 200, false}));
  EXPECT_EQ(held.gone.count(), 0) << "the answer was complete: there is nothing left to cancel";
}

TEST(HttpServer, AStreamWhoseReaderFallsBehindIsDropped) {
  Held held;
  TestServer server(held.handler(), {.unsent_bytes = 100'000});
  Client client = server.client(/*receive_buffer=*/4096);
  client.send(get("/"));
  ASSERT_TRUE(held.arrived.wait());
  const auto responder = held.take().second;
  responder->start_events();
  const std::string event(10'000, 'a');
  std::size_t sent = 0;
  for (; held.gone.count() == 0 && sent < (std::size_t{64} << 20); sent += event.size()) {
    responder->write(event);
    if (sent % 1'000'000 == 0) std::this_thread::sleep_for(1ms);  // the posts are carried out
  }
  ASSERT_TRUE(held.gone.wait());
  EXPECT_FALSE(server.application.records()[0].complete);
}

TEST(HttpServer, AReaderThatIsSlowButReadsGetsAll) {
  const std::size_t n = 3'000'000;
  TestServer server([](HttpRequest, std::shared_ptr<Responder> r) { r->send(200, "text/plain", std::string(n, 'a')); },
                    {.write_timeout = 500ms});
  Client client = server.client(/*receive_buffer=*/65536);
  client.send(get("/"));
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(20ms);
    client.receive();
  }
  EXPECT_EQ(client.read_answer().body.size(), n);
}

// ---- clients that go ----

TEST(HttpServer, AHandlerHearsThatItsClientHasGone) {
  Held held;
  TestServer server(held.handler());
  int n = 0;
  for (const bool reset : {false, true})
    for (const bool streaming : {false, true}) {
      Client client = server.client();
      client.send(post("/", "x"));
      ASSERT_TRUE(held.arrived.wait(++n));
      const auto responder = held.take().second;
      if (streaming) {
        responder->start_events();
        ASSERT_TRUE(client.sees("\r\n\r\n"));
      }
      EXPECT_EQ(held.gone.count(), n - 1);
      reset ? client.reset() : client.close();
      ASSERT_TRUE(held.gone.wait(n));
      responder->write("ignored");
      responder->send(200, "text/plain", "ignored");
      Signal at_once;
      responder->on_disconnect([&] { at_once.set(); });
      EXPECT_EQ(at_once.count(), 1);
    }
  ASSERT_TRUE(server.application.n_answered.wait(4));
  EXPECT_EQ(server.application.records()[0].status, 499);
  EXPECT_EQ(server.application.records()[1].status, 200);
  for (const auto& record : server.application.records()) EXPECT_FALSE(record.complete);
}

TEST(HttpServer, AClientThatGoesAfterItsAnswerDisturbsNobody) {
  Held held;
  TestServer server(held.handler());
  std::shared_ptr<Responder> responder;
  {
    Client client = server.client();
    client.send(get("/"));
    ASSERT_TRUE(held.arrived.wait());
    responder = held.take().second;
    responder->send(200, "text/plain", "x");
    EXPECT_EQ(client.read_answer().status, 200);
  }
  ASSERT_TRUE(eventually([&] { return server.http.n_connections() <= 0; }));
  Signal late;
  responder->on_disconnect([&] { late.set(); });
  responder.reset();
  EXPECT_EQ(held.gone.count() + late.count(), 0);
}

TEST(HttpServer, HalfARequestThatNeverEndsLeavesNothing) {
  TestServer server(echo);
  for (const std::string part : {"", "GET", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab"}) {
    Client client = server.client();
    client.send(part);
    client.close();
  }
  ASSERT_TRUE(eventually([&] { return server.http.n_connections() <= 0; }));
  EXPECT_TRUE(server.application.records().empty());
}

// ---- handlers that fail ----

TEST(HttpServer, WhatAHandlerThrowsIsTheAnswer) {
  TestServer server([](HttpRequest request, std::shared_ptr<Responder>) {
    if (request.path == "/api") throw ApiError(429, "queue is full");
    if (request.path == "/other") throw std::runtime_error("secret");
    // Else: it forgets to answer.
  });
  Client client = server.client();
  HttpAnswer answer = client.ask(post("/api", "x"));
  expect_error(answer, 429);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  for (const char* path : {"/other", "/forgotten"}) {
    answer = client.ask(post(path, "x"));
    expect_error(answer, 500);
    EXPECT_EQ(answer.body.find("secret"), std::string::npos);
  }
}

TEST(HttpServer, AStreamThatIsBrokenOffLooksBroken) {
  TestServer server([](HttpRequest request, std::shared_ptr<Responder> responder) {
    responder->start_events();
    responder->write("data: 1\n\n");
    if (request.path == "/throws") throw std::runtime_error("late");
  });
  for (const char* path : {"/throws", "/forgets"}) {
    const HttpAnswer answer = server.client().ask(get(path));
    EXPECT_EQ(answer.status, 200);
    EXPECT_FALSE(answer.whole);
  }
}

TEST(HttpServer, OnlyTheFirstAnswerCounts) {
  TestServer server([](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->send(200, "text/plain", "first");
    responder->send(200, "text/plain", "second");
    responder->start_events();
    responder->write("x");
    responder->finish();
  });
  Client client = server.client();
  EXPECT_EQ(client.ask(get("/")).body, "first");
  EXPECT_EQ(client.ask(get("/")).body, "first");
}

// ---- many ----

TEST(HttpServer, IdleAndSlowClientsDoNotHoldUpAGoodOne) {
  TestServer server(echo);
  std::vector<Client> others;
  for (int i = 0; i < 400; ++i) {
    others.push_back(server.client());
    ASSERT_TRUE(others.back().connected());
    if (i % 2 == 0) others.back().send("POST / HTTP/1.1\r\nhost: x\r\ncontent-le");
  }
  Client good = server.client();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(good.ask(get("/")).status, 200);
  EXPECT_EQ(server.http.n_connections(), 401);
  others.clear();
  ASSERT_TRUE(eventually([&] { return server.http.n_connections() <= 1; }));
}

TEST(HttpServer, TooManyConnectionsAreToldSo) {
  Held held;
  TestServer server(held.handler(), {.connections = 3});
  std::vector<Client> clients;
  for (int i = 1; i <= 3; ++i) {
    clients.push_back(server.client());
    clients.back().send(get("/"));
    ASSERT_TRUE(held.arrived.wait(i));
  }
  Client refused = server.client();
  expect_error(refused.read_answer(), 503);
  EXPECT_TRUE(refused.ends());
  EXPECT_EQ(held.gone.count(), 0);
  clients.pop_back();
  ASSERT_TRUE(eventually([&] { return server.http.n_connections() <= 2; }));
  Client taken = server.client();
  taken.send(get("/"));
  EXPECT_TRUE(held.arrived.wait(4));
}

TEST(HttpServer, WhoIsIdleLongestMakesRoom) {
  TestServer server(echo, {.connections = 3});
  std::vector<Client> clients;
  for (int i = 1; i <= 3; ++i) {
    clients.push_back(server.client());
    ASSERT_TRUE(eventually([&] { return server.http.n_connections() >= i; }));  // they are accepted in order
  }
  EXPECT_EQ(clients[0].ask(get("/")).status, 200);
  EXPECT_EQ(server.client().ask(get("/")).status, 200);
  EXPECT_TRUE(clients[1].ends());
  EXPECT_EQ(clients[0].ask(get("/")).status, 200);
  EXPECT_EQ(clients[2].ask(get("/")).status, 200);
}

TEST(HttpServer, SurvivesWithoutDescriptors) {
  TestServer server(echo);
  Client early = server.client();
  EXPECT_EQ(early.ask(get("/")).status, 200);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{.rlim_cur = 64, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    std::vector<Client> clients;
    do clients.push_back(server.client());
    while (clients.back().connected() && clients.size() < 200);
    EXPECT_LT(clients.size(), 100u);
    EXPECT_EQ(early.ask(get("/")).status, 200) << "who is connected is served";
  }
  EXPECT_EQ(server.client().ask(get("/")).status, 200);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST(HttpServer, ManyStreamsAtOnceAreEachWhole) {
  // Answers come from threads of their own, as the engine's do.
  std::vector<std::jthread> threads;
  std::mutex mutex;
  TestServer server([&](HttpRequest request, std::shared_ptr<Responder> responder) {
    const std::scoped_lock lock(mutex);
    threads.emplace_back([request = std::move(request), responder = std::move(responder)] {
      responder->start_events();
      for (int i = 0; i < 50; ++i) responder->write(request.path + "\n");
      responder->finish();
    });
  });
  std::vector<Client> clients;
  for (int i = 0; i < 30; ++i) {
    clients.push_back(server.client());
    clients.back().send(get(fmt::format("/{}", i)));
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    if (i % 3 == 0) clients[i].close();  // some go
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    if (i % 3 == 0) continue;
    std::string want;
    for (int k = 0; k < 50; ++k) want += fmt::format("/{}\n", i);
    EXPECT_EQ(clients[i].read_answer().body, want);
  }
}

// ---- the server's life ----

TEST(HttpServer, AnAddressThatIsTakenIsAClearError) {
  TestServer server(echo);
  Application other(echo);
  try {
    HttpServer second("127.0.0.1", server.http.port(), 1, {}, other);
    FAIL() << "two servers on one port";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("--port"), std::string::npos) << error.what();
  }
  EXPECT_THROW(HttpServer("no.such.host.invalid", 0, 1, {}, other), InputError);
  EXPECT_THROW(HttpServer("192.0.2.1", 0, 1, {}, other), InputError);  // not of this machine
}

TEST(HttpServer, ListensOnIpv6) {
  Application application(echo);
  std::optional<HttpServer> server;
  try {
    server.emplace("::1", 0, 1, HttpLimits{}, application);
  } catch (const InputError&) {
    GTEST_SKIP() << "no IPv6 here";
  }
  EXPECT_EQ(server->url(), fmt::format("http://[::1]:{}", server->port()));
}

TEST(HttpServer, DrainingLetsAnswersEndAndClosesTheIdle) {
  Held held;
  TestServer server(held.handler());
  Client idle = server.client(), busy = server.client();
  busy.send(get("/"));
  ASSERT_TRUE(held.arrived.wait());
  server.http.drain();
  EXPECT_TRUE(idle.ends());
  EXPECT_FALSE(server.http.wait_idle(std::chrono::steady_clock::now() + 50ms));
  held.take().second->send(200, "text/plain", "x");
  const HttpAnswer answer = busy.read_answer();
  EXPECT_EQ(answer.body, "x");
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(server.http.wait_idle(std::chrono::steady_clock::now() + patience));
}

TEST(HttpServer, ClosingDropsClientsAndTellsHandlers) {
  Held held;
  std::optional<TestServer> server(std::in_place, held.handler());
  Client client = server->client();
  client.send(get("/"));
  ASSERT_TRUE(held.arrived.wait());
  server->http.close();
  EXPECT_EQ(held.gone.count(), 1);
  EXPECT_TRUE(client.ends());
  server.reset();
  held.take().second->send(200, "text/plain", "nobody hears");  // responders may outlive the server
}

}  // namespace
}  // namespace photon
