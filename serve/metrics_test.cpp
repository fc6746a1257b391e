#include "serve/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <string>

namespace photon {
namespace {

using std::chrono::milliseconds;

// The value of a line, whatever the order of its labels.
double value(const Metrics& metrics, const std::string& name, std::vector<std::string> labels = {}) {
  std::istringstream lines(metrics.text());
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("photon:" + name + "{")) continue;
    if (std::ranges::all_of(labels, [&](const auto& label) { return line.find(label) != std::string::npos; }))
      return std::stod(line.substr(line.rfind(' ')));
  }
  ADD_FAILURE() << "no photon:" << name;
  return -1;
}

TEST(Metrics, CountsPerProtocol) {
  Metrics metrics("a-model");
  metrics.first_token(Protocol::recgen, milliseconds(30));
  metrics.next_token(Protocol::recgen, milliseconds(2));
  metrics.next_token(Protocol::recgen, milliseconds(4));
  RequestStats stats;
  stats.prompt_tokens = 100, stats.cached_tokens = 64, stats.generated_tokens = 3, stats.queue_ms = 500;
  stats.kv_bytes_growing = 5000, stats.kv_bytes_constant = 7000;
  metrics.request_done(Protocol::recgen, Outcome::length, stats, milliseconds(600));
  metrics.request_refused(Protocol::hiergen);

  const std::string recgen = "protocol=\"recgen\"", hiergen = "protocol=\"hiergen\"";
  EXPECT_EQ(value(metrics, "time_to_first_token_seconds_count", {recgen, "model_name=\"a-model\""}), 1);
  EXPECT_NEAR(value(metrics, "time_to_first_token_seconds_sum", {recgen}), 0.03, 1e-9);
  EXPECT_EQ(value(metrics, "time_to_first_token_seconds_bucket", {recgen, "le=\"0.025\""}), 0);
  EXPECT_EQ(value(metrics, "time_to_first_token_seconds_bucket", {recgen, "le=\"0.05\""}), 1);
  EXPECT_EQ(value(metrics, "time_to_first_token_seconds_count", {hiergen}), 0);
  EXPECT_EQ(value(metrics, "inter_token_latency_seconds_count", {recgen}), 2);
  EXPECT_NEAR(value(metrics, "e2e_request_latency_seconds_sum", {recgen}), 0.6, 1e-9);
  EXPECT_NEAR(value(metrics, "request_queue_time_seconds_sum", {recgen}), 0.5, 1e-9);
  EXPECT_EQ(value(metrics, "prompt_tokens_total", {recgen}), 100);
  EXPECT_EQ(value(metrics, "prompt_tokens_cached_total", {recgen}), 64);
  EXPECT_EQ(value(metrics, "generation_tokens_total", {recgen}), 3);
  EXPECT_EQ(value(metrics, "generation_tokens_total", {hiergen}), 0);
  EXPECT_EQ(value(metrics, "requests_total", {recgen, "outcome=\"length\""}), 1);
  EXPECT_EQ(value(metrics, "requests_total", {hiergen, "outcome=\"refused\""}), 1);
  EXPECT_EQ(value(metrics, "requests_total", {recgen, "outcome=\"refused\""}), 0);
  EXPECT_EQ(value(metrics, "request_kv_bytes_sum", {recgen, "kind=\"growing\""}), 5000);
  EXPECT_EQ(value(metrics, "request_kv_bytes_sum", {recgen, "kind=\"constant\""}), 7000);
}

TEST(Metrics, StatusIsAGaugeAndItsCountsGrow) {
  Metrics metrics("a-model");
  Scheduler::Status status;
  status.queued = 4, status.prefilling = 1, status.decoding = 2, status.sequences = 5;
  status.kv_bytes_growing = 10, status.kv_bytes_constant = 20, status.kv_bytes_prefix_cache = 30;
  status.kv_bytes_reserved = 40, status.kv_budget_bytes = 120;
  status.prefix_queries = 7, status.prefix_hits = 3;
  metrics.set_status(status);
  status.prefix_queries = 9, status.queued = 1;
  metrics.set_status(status);
  EXPECT_EQ(value(metrics, "num_requests_waiting"), 1);
  EXPECT_EQ(value(metrics, "num_requests_running"), 3);
  EXPECT_EQ(value(metrics, "num_sequences_running"), 5);
  for (const auto& [kind, bytes] : std::vector<std::pair<std::string, double>>{
           {"growing", 10}, {"constant", 20}, {"prefix_cache", 30}, {"reserved", 40}, {"budget", 120}})
    EXPECT_EQ(value(metrics, "kv_bytes", {"kind=\"" + kind + "\""}), bytes);
  EXPECT_EQ(value(metrics, "kv_cache_usage_perc"), 0.5);
  EXPECT_EQ(value(metrics, "prefix_cache_queries_total"), 9);
  EXPECT_EQ(value(metrics, "prefix_cache_hits_total"), 3);
}

TEST(Metrics, EveryLineIsTheTextFormat) {
  Metrics metrics("a \"model\"\\\n");
  metrics.http_answer(200), metrics.http_answer(429), metrics.http_answer(200);
  EXPECT_EQ(value(metrics, "http_responses_total", {"status=\"200\""}), 2);
  const std::regex sample(R"re(photon:[a-z0-9_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)*\})? [-+0-9.einfNa]+)re");
  std::istringstream lines(metrics.text());
  for (std::string line; std::getline(lines, line);)
    EXPECT_TRUE(line.starts_with("# HELP photon:") || line.starts_with("# TYPE photon:") ||
                std::regex_match(line, sample))
        << line;
}

}  // namespace
}  // namespace photon
