#include "serve/router.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "serve/errors.h"

namespace photon {
namespace {

struct Sent {
  int status = 0;
  std::string body;
  std::map<std::string, std::string> headers;
};

struct Recorder : Responder {
  explicit Recorder(Sent& sent_) : sent(sent_) {}
  void send(int status, std::string_view, std::string body, const Headers& headers) override {
    sent.status = status, sent.body = std::move(body);
    sent.headers.insert(headers.begin(), headers.end());
  }
  void start_events(const Headers&) override {}
  void write(std::string) override {}
  void finish() override {}
  void on_disconnect(std::function<void()>) override {}
  Sent& sent;
};

HttpRequest request(const std::string& method, const std::string& path,
                    std::vector<std::pair<std::string, std::string>> headers = {}) {
  HttpRequest made;
  made.method = method, made.path = path, made.headers = std::move(headers);
  return made;
}

// What the server does with a router.
Sent ask(const Router& router, const HttpRequest& asked) {
  Sent sent;
  Responder::Headers headers;
  try {
    router.admit(asked, headers);
    router.handle(asked, std::make_shared<Recorder>(sent));
  } catch (const ApiError& error) {
    sent.status = error.status, sent.body = error_json(error);
  }
  sent.headers.insert(headers.begin(), headers.end());
  return sent;
}

HttpHandler says(const std::string& text) {
  return [text](HttpRequest, std::shared_ptr<Responder> responder) { responder->send(200, "text/plain", text); };
}

void add_routes(Router& router) {
  router.add("GET", "/health", Access::open, says("fine"));
  router.add("GET", "/v1/models", Access::keyed, says("models"));
  router.add("POST", "/v1/completions", Access::keyed, says("text"));
  router.add("GET", "/both", Access::keyed, says("got"));
  router.add("POST", "/both", Access::keyed, says("posted"));
  router.set_phase(Phase::ready);
}

TEST(Router, FindsTheHandlerByMethodAndPath) {
  Router router;
  add_routes(router);
  EXPECT_EQ(ask(router, request("GET", "/both")).body, "got");
  EXPECT_EQ(ask(router, request("POST", "/both")).body, "posted");
  EXPECT_EQ(ask(router, request("HEAD", "/both")).body, "got");
  EXPECT_EQ(ask(router, request("OPTIONS", "/both")).status, 204);
  EXPECT_EQ(ask(router, request("OPTIONS", "/both")).headers["allow"], "OPTIONS, GET, HEAD, POST");
  for (const char* path : {"/nothing", "/both/", "/Both", "//both", "", "*", "/v1/../both"})
    EXPECT_EQ(ask(router, request("GET", path)).status, 404) << path;
  const Sent wrong = ask(router, request("DELETE", "/v1/completions"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "OPTIONS, POST");
  EXPECT_EQ(ask(router, request("HEAD", "/v1/completions")).status, 405);
}

TEST(Router, EverythingThatIsNotOpenNeedsAKey) {
  Router router({"first", "second"});
  add_routes(router);
  EXPECT_EQ(ask(router, request("GET", "/health")).status, 200);
  EXPECT_EQ(ask(router, request("PUT", "/health")).status, 405);
  using Headers = std::vector<std::pair<std::string, std::string>>;
  for (const Headers& headers :
       {Headers{}, Headers{{"authorization", "first"}}, Headers{{"authorization", "Bearer firs"}},
        Headers{{"authorization", "Bearer first "}}, Headers{{"authorization", "Bearer "}},
        Headers{{"authorization", "Basic first"}}, Headers{{"x-api-key", ""}}, Headers{{"x-api-key", "FIRST"}},
        Headers{{"authorization", "Bearer wrong"}, {"x-api-key", "first"}}, Headers{{"cookie", "first"}}})
    for (const char* path : {"/v1/models", "/v1/completions", "/unknown"}) {
      const Sent sent = ask(router, request("GET", path, headers));
      EXPECT_EQ(sent.status, 401) << path;
      EXPECT_NE(sent.body.find("authentication_error"), std::string::npos);
      EXPECT_EQ(sent.headers.at("www-authenticate"), "Bearer");
    }
  for (const Headers& headers : {Headers{{"authorization", "Bearer first"}},
                                 Headers{{"authorization", "bearer second"}}, Headers{{"x-api-key", "second"}}}) {
    EXPECT_EQ(ask(router, request("GET", "/v1/models", headers)).body, "models");
    EXPECT_EQ(ask(router, request("GET", "/unknown", headers)).status, 404);
  }
}

TEST(Router, PagesOfOthersReadNothingUnlessAllowed) {
  const std::string origin = "access-control-allow-origin";
  const auto from = [](const char* whose) { return request("GET", "/health", {{"origin", whose}}); };
  Router closed, some({}, {"https://a.example"}), all({}, {"*"});
  for (Router* router : {&closed, &some, &all}) add_routes(*router);
  EXPECT_FALSE(ask(closed, from("https://a.example")).headers.contains(origin));
  EXPECT_FALSE(ask(some, from("https://b.example")).headers.contains(origin));
  EXPECT_FALSE(ask(some, request("GET", "/health")).headers.contains(origin));
  EXPECT_EQ(ask(some, from("https://a.example")).headers.at(origin), "https://a.example");
  EXPECT_EQ(ask(some, from("https://b.example")).headers.at("vary"), "origin");
  EXPECT_EQ(ask(all, from("https://b.example")).headers.at(origin), "https://b.example");
}

TEST(Router, PreflightsNeedNoKeyAndGiveNothingAway) {
  Router router({"key"}, {"https://a.example"});
  add_routes(router);
  const auto preflight = [&](const char* origin) {
    return ask(router, request("OPTIONS", "/v1/completions",
                               {{"origin", origin},
                                {"access-control-request-method", "POST"},
                                {"access-control-request-headers", "authorization, x-stainless-os"}}));
  };
  const Sent allowed = preflight("https://a.example");
  EXPECT_EQ(allowed.status, 204);
  EXPECT_EQ(allowed.headers.at("access-control-allow-methods"), "POST");
  EXPECT_EQ(allowed.headers.at("access-control-allow-headers"), "authorization, x-stainless-os");
  EXPECT_FALSE(preflight("https://b.example").headers.contains("access-control-allow-methods"));
  EXPECT_EQ(ask(router, request("OPTIONS", "/v1/completions")).status, 401) << "no preflight";
}

TEST(Router, OnlyServesWhileReady) {
  Router router({"key"}, {"*"});
  EXPECT_EQ(router.phase(), Phase::loading);
  const auto expect_unavailable = [&](const char* message) {
    for (const char* path : {"/health", "/v1/models", "/unknown"}) {
      const Sent sent = ask(router, request("GET", path, {{"origin", "https://a.example"}}));
      EXPECT_EQ(sent.status, 503);
      EXPECT_EQ(sent.headers.at("access-control-allow-origin"), "https://a.example");
      EXPECT_EQ(sent.body, std::string(R"({"error":{"message":")") + message +
                               R"(","type":"unavailable_error","param":null,"code":503}})");
    }
  };
  expect_unavailable("Loading model");
  add_routes(router);
  EXPECT_EQ(ask(router, request("GET", "/health")).status, 200);
  router.set_phase(Phase::draining);
  expect_unavailable("The server is shutting down");
}

}  // namespace
}  // namespace photon
