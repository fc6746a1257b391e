// Properties of photon bench serve: the load that is planned, what a client reads, and what is told of the answers.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "bench/serve_client.h"
#include "bench/serve_plan.h"
#include "bench/serve_report.h"
#include "bench/serve_run.h"
#include "serve/http_server.h"
#include "serve/http_testing.h"

namespace photon {
namespace {

using nlohmann::json;
using namespace testing_support;

// ---- the plan ----

TEST(LoadPlan, GapsBetweenArrivalsAreExponential) {
  const auto plan = plan_load({.rate = 4, .requests = 40'001});
  std::vector<double> gaps;
  for (std::size_t i = 1; i < plan.size(); ++i) gaps.push_back(plan[i].at_s - plan[i - 1].at_s);
  double mean = 0, square = 0, above_mean = 0;
  for (const double gap : gaps) {
    ASSERT_GE(gap, 0);
    mean += gap / 40'000, square += gap * gap / 40'000, above_mean += gap > 0.25 ? 1 / 40'000.0 : 0;
  }
  EXPECT_EQ(plan.front().at_s, 0);
  EXPECT_NEAR(mean, 0.25, 0.005);                            // four standard errors
  EXPECT_NEAR(std::sqrt(square - mean * mean), 0.25, 0.01);  // as wide as its mean
  EXPECT_NEAR(above_mean, std::exp(-1), 0.01);
}

TEST(LoadPlan, ASeedGivesTheSameLoadAndAnotherSeedAnotherOne) {
  const LoadOptions one{.requests = 50, .prompt_tokens = {1, 100}, .output_tokens = {5, 9}};
  LoadOptions other = one;
  other.seed = 2;
  const auto key = [](const std::vector<PlannedRequest>& plan) {
    std::vector<std::tuple<double, std::int64_t, std::int64_t>> all;
    for (const auto& request : plan) all.emplace_back(request.at_s, request.prompt_tokens, request.output_tokens);
    return all;
  };
  EXPECT_EQ(key(plan_load(one)), key(plan_load(one)));
  EXPECT_NE(key(plan_load(one)), key(plan_load(other)));
  EXPECT_EQ(prompt_of(one, 20, 3, 4096), prompt_of(one, 20, 3, 4096));
  EXPECT_NE(prompt_of(one, 20, 3, 4096), prompt_of(one, 20, 4, 4096));
  EXPECT_NE(prompt_of(one, 20, 3, 4096), prompt_of(other, 20, 3, 4096));
}

TEST(LoadPlan, LengthsFillTheirRanges) {
  std::set<std::int64_t> prompts, outputs;
  for (const auto& request : plan_load({.requests = 500, .prompt_tokens = {3, 6}, .output_tokens = {7, 7}}))
    prompts.insert(request.prompt_tokens), outputs.insert(request.output_tokens);
  EXPECT_EQ(prompts, (std::set<std::int64_t>{3, 4, 5, 6}));
  EXPECT_EQ(outputs, (std::set<std::int64_t>{7}));
}

TEST(LoadPlan, ADurationBoundsTheArrivals) {
  const auto plan = plan_load({.rate = 100, .requests = 5, .duration_s = 2});
  EXPECT_NEAR(static_cast<double>(plan.size()), 200, 60);
  EXPECT_LT(plan.back().at_s, 2);
}

TEST(LoadPlan, PromptsShareTheBeginningThatWasAskedFor) {
  const LoadOptions options{.share_prefix = 0.75};
  const auto a = prompt_of(options, 40, 1, 4096), b = prompt_of(options, 40, 2, 4096);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 30, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 30, a.end(), b.begin() + 30));
  EXPECT_TRUE(std::ranges::all_of(prompt_of(options, 1000, 3, 7), [](auto id) { return 0 <= id && id < 7; }));
}

TEST(LoadPlan, LengthsAreOneNumberOrARange) {
  EXPECT_EQ(parse_length_range("512"), (LengthRange{512, 512}));
  EXPECT_EQ(parse_length_range("1,9"), (LengthRange{1, 9}));
  for (const char* wrong : {"", "0", "-1", "9,1", "1,2,3", "1,", ",1", "1.5", "1 ", "99999999999"})
    EXPECT_THROW(parse_length_range(wrong), InputError) << wrong;
}

// ---- the report ----

TEST(LoadReport, PercentilesAreThoseOfTheSortedValues) {
  std::vector<double> values;
  for (int i = 0; i <= 100; ++i) values.push_back((37 * i) % 101);  // 0 to 100 in disorder
  const auto p = percentiles_of(values);
  ASSERT_TRUE(p);
  EXPECT_DOUBLE_EQ(p->p50, 50);
  EXPECT_DOUBLE_EQ(p->p90, 90);
  EXPECT_DOUBLE_EQ(p->p95, 95);
  EXPECT_DOUBLE_EQ(p->p99, 99);
  EXPECT_DOUBLE_EQ(p->max, 100);
  EXPECT_DOUBLE_EQ(p->mean, 50);
  EXPECT_DOUBLE_EQ(percentiles_of({10, 20})->p50, 15) << "between two ranks, linearly";
  EXPECT_DOUBLE_EQ(percentiles_of({7})->p99, 7);
  EXPECT_FALSE(percentiles_of({}));
}

TEST(LoadReport, GoodputCountsWhatMetEveryObjective) {
  const RequestResult fast{.ended_s = 4, .ttft_ms = 100, .gaps_ms = {10, 30}};
  RequestResult late_first = fast, slow = fast, failed = fast, single = fast;
  late_first.ttft_ms = 101;
  slow.gaps_ms = {10, 31};
  failed.error = "503";
  single.gaps_ms = {};  // of one token, between which there is no time
  LoadOptions options{.slo_ttft_ms = 100, .slo_itl_ms = 20};
  const LoadResult result{.requests = {fast, late_first, slow, failed, single}};
  EXPECT_EQ(summary_of(result, options).good, 2);
  options.slo_itl_ms.reset();
  EXPECT_EQ(summary_of(result, options).good, 3);
  options.slo_ttft_ms.reset();
  EXPECT_FALSE(summary_of(result, options).good) << "no objective, no goodput";
}

TEST(LoadReport, ThroughputIsOverTheTimeFromTheFirstArrivalToTheLastAnswer) {
  const RequestResult first{.planned_s = 0, .ended_s = 3, .prompt_tokens = 5, .output_tokens = 10};
  const RequestResult last{.planned_s = 1, .ended_s = 4, .prompt_tokens = 5, .output_tokens = 20};
  RequestResult failed = first;
  failed.error = "timeout";
  const LoadSummary summary = summary_of({.requests = {first, last, failed}}, {});
  EXPECT_DOUBLE_EQ(summary.requests_per_s(), 0.5);
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_s(), 7.5);
  EXPECT_DOUBLE_EQ(summary.tokens_per_s(), 10);
  EXPECT_EQ(summary.errors, (std::map<std::string, std::int64_t>{{"timeout", 1}}));
}

// ---- the client ----

TEST(LoadClient, TakesUrlsOfHostsAndNothingElse) {
  const auto parts = [](const char* text) {
    const ServerUrl url = parse_server_url(text);
    return url.host + " " + url.port + " " + url.text;
  };
  EXPECT_EQ(parts("http://127.0.0.1:8080"), "127.0.0.1 8080 http://127.0.0.1:8080");
  EXPECT_EQ(parts("http://name/"), "name 80 http://name");
  EXPECT_EQ(parts("http://[::1]:9"), "::1 9 http://[::1]:9");
  for (const char* wrong :
       {"", "127.0.0.1:8080", "https://a", "http://", "http://:80", "http://a:", "http://a:x", "http://a:65536",
        "http://a/v1", "http://u@a", "http://[::1", "http://[::1]x", "http://a b"})
    EXPECT_THROW(parse_server_url(wrong), InputError) << wrong;
}

TEST(LoadClient, EventsAreFoundHoweverTheyAreCut) {
  const std::string stream = ": hello\n\ndata: one\n\ndata: two\r\n\r\ndata: [DONE]\n\n";
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    EventReader reader;
    std::vector<std::string> events;
    for (std::size_t at = 0; at < stream.size(); at += piece)
      reader.feed(std::string_view(stream).substr(at, piece),
                  [&](std::string_view data) { events.emplace_back(data); });
    EXPECT_EQ(events, (std::vector<std::string>{"one", "two", "[DONE]"})) << piece;
  }
}

TEST(LoadClient, ReadsKvBytesOfEveryKindButTheBudget) {
  const auto bytes = kv_bytes_by_kind(
      "# HELP photon:kv_bytes what\nphoton:kv_bytes{kind=\"growing\",model_name=\"x\"} 1536\n"
      "photon:kv_bytes{kind=\"prefix_cache\",model_name=\"x\"} 2e+09\n"
      "photon:kv_bytes{kind=\"budget\",model_name=\"x\"} 4096\nphoton:kv_bytes_other{kind=\"y\"} 1\n");
  EXPECT_EQ(bytes, (std::map<std::string, std::int64_t>{{"growing", 1536}, {"prefix_cache", 2'000'000'000}}));
}

// ---- against a server of the test's own ----

// Answers as photon serve would: max_tokens tokens at once, the last of them after the others.
void complete(const json& body, Responder& responder) {
  const auto n = body.at("max_tokens").get<std::size_t>();
  const auto event = [&](const json& choices) {
    responder.write("data: " + json{{"choices", choices}, {"usage", nullptr}}.dump() + "\n\n");
  };
  responder.start_events();
  for (int i = 0; i < body.at("n").get<int>(); ++i) {
    event({{{"index", i}, {"text", "a"}, {"token_ids", std::vector<int>(n - 1, 7)}}});
    event({{{"index", i}, {"text", "b"}, {"token_ids", {7}}}});
  }
  responder.write("data: " +
                  json{{"choices", json::array()},
                       {"usage",
                        {{"prompt_tokens", body.at("prompt").size()},
                         {"completion_tokens", n * body.at("n").get<std::size_t>()},
                         {"prompt_tokens_details", {{"cached_tokens", 2}}}}}}
                      .dump() +
                  "\n\ndata: [DONE]\n\n");
  responder.finish();
}

class BenchServe : public ::testing::Test {
 protected:
  using Answer = std::function<void(const json& body, std::shared_ptr<Responder> responder)>;

  void handle(const HttpRequest& request, std::shared_ptr<Responder> responder) {
    if (request.path == "/props")
      return responder->send(200, "application/json", R"({"model": "stand-in", "vocab_size": 50})");
    if (request.path == "/metrics")
      return responder->send(200, "text/plain", "photon:kv_bytes{kind=\"growing\"} 1048576\n");
    const json body = json::parse(request.body);
    {
      const std::scoped_lock lock(mutex_);
      bodies_.push_back(body);
    }
    answer_(body, std::move(responder));
  }

  json bench(LoadOptions options) {
    options.url = server_.url();
    const LoadResult result = run_load(options, [](const std::string&) {});
    return to_json(result, summary_of(result, options), options);
  }

  Answer answer_ = [](const json& body, std::shared_ptr<Responder> responder) { complete(body, *responder); };
  std::mutex mutex_;
  std::vector<json> bodies_;
  Application application_{
      [this](HttpRequest request, std::shared_ptr<Responder> responder) { handle(request, std::move(responder)); }};
  HttpServer server_{"127.0.0.1", 0, 1, HttpLimits{}, application_};
};

TEST_F(BenchServe, TellsWhatAServerAnswered) {
  const json result = bench({.rate = 200,
                             .requests = 20,
                             .warmup = 3,
                             .prompt_tokens = {4, 8},
                             .output_tokens = {5, 5},
                             .n = 2,
                             .slo_ttft_ms = 1e9,
                             .slo_itl_ms = 1e9});
  EXPECT_EQ(bodies_.size(), 23u);
  for (const json& body : bodies_) {
    EXPECT_TRUE(body["stream"] && body["ignore_eos"]);
    EXPECT_EQ(body["max_tokens"], 5);
    EXPECT_GE(body["prompt"].size(), 4u);
    EXPECT_LE(body["prompt"].size(), 8u);
    for (const json& id : body["prompt"]) EXPECT_LT(id, 50);
  }
  EXPECT_EQ(result["sent"], 20);
  EXPECT_EQ(result["answered"], 20);
  EXPECT_EQ(result["good"], 20);
  EXPECT_EQ(result["errors"], json::object());
  EXPECT_EQ(result["total_output_tokens"], 20 * 2 * 5);
  EXPECT_EQ(result["total_cached_tokens"], 40);
  EXPECT_EQ(result["server"]["model"], "stand-in");
  EXPECT_EQ(result["kv_bytes_peak"]["growing"], 1 << 20);
  for (const char* key : {"ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "late_ms"}) EXPECT_GE(result[key]["p99"], 0) << key;
  EXPECT_GT(result["ttft_ms"]["p50"], 0);
  EXPECT_EQ(result["itl_ms"]["p50"], 0) << "tokens that came together have no time between them";
  for (const char* key : {"cpu", "isa", "commit", "seed", "rate", "share_prefix"}) EXPECT_TRUE(result.contains(key));
}

// Coordinated omission: the clock runs while the generator cannot send.
TEST_F(BenchServe, LatencyCountsFromThePlannedArrival) {
  const LoadResult result = run_load(
      {.url = server_.url(), .rate = 1e6, .requests = 50, .prompt_tokens = {20'000, 20'000}, .output_tokens = {2, 2}},
      [](const std::string&) {});
  double latest = 0;
  for (const RequestResult& request : result.requests) {
    ASSERT_TRUE(request.answered()) << request.error;
    const double late_ms = 1e3 * (request.sent_s - request.planned_s);
    EXPECT_GE(request.ttft_ms, late_ms);
    EXPECT_GE(request.e2e_ms, request.ttft_ms);
    latest = std::max(latest, late_ms);
  }
  EXPECT_GT(latest, 1) << "the generator was never late, so nothing was tested";
}

TEST_F(BenchServe, CountsErrorsByKindAndGoesOn) {
  std::atomic<int> n = 0;
  answer_ = [&](const json& body, std::shared_ptr<Responder> kept) {
    Responder& responder = *kept;
    switch (n++) {
      case 0:
        return responder.send(429, "application/json", R"({"error": {"message": "the queue is full"}})");
      case 1:
        responder.start_events();
        responder.write("data: {\"error\": {\"message\": \"broken\"}}\n\n");
        return responder.finish();
      case 2:
        responder.start_events();
        return responder.finish();
      case 3:
        responder.start_events();
        responder.write("data: {\"choices\": 7}\n\n");
        return responder.finish();
      default:
        return complete(body, responder);
    }
  };
  const json result = bench({.rate = 1000, .requests = 6, .prompt_tokens = {1, 1}, .output_tokens = {2, 2}});
  EXPECT_EQ(result["sent"], 6);
  EXPECT_EQ(result["answered"], 2);
  EXPECT_EQ(result["errors"], (json{{"429", 1}, {"error event", 1}, {"cut short", 1}, {"no completion event", 1}}));
}

TEST_F(BenchServe, ARequestThatTakesTooLongIsATimeout) {
  std::shared_ptr<Responder> kept;  // its client waits
  answer_ = [&](const json& body, std::shared_ptr<Responder> responder) {
    responder->start_events();
    if (kept) return complete(body, *responder);
    kept = responder;
  };
  const json result = bench({.rate = 1000, .requests = 3, .prompt_tokens = {1, 1}, .timeout_s = 1});
  EXPECT_EQ(result["answered"], 2);
  EXPECT_EQ(result["errors"], (json{{"timeout", 1}}));
}

TEST(LoadRun, SaysWhereThereIsNoServer) {
  try {
    run_load({.url = "http://127.0.0.1:1"}, [](const std::string&) {});
    FAIL() << "nothing was thrown";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("http://127.0.0.1:1: no answer"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace photon
