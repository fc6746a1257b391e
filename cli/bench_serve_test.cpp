// The command line of photon bench serve: its flags reach the load, and what fails or is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/command_testing.h"
#include "serve/http_server.h"
#include "serve/http_testing.h"

namespace photon {
namespace {

using nlohmann::json;
using namespace testing_support;

// A server whose answers to everything but its properties are `status` and `body`.
class BenchServeCommand : public ::testing::Test {
 protected:
  std::string bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"serve", "--url", server_.url(), "--json"});
    return run_command(&add_bench, "bench", std::move(arguments));
  }

  int status = 200;
  std::string body;
  Application application_{[this](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.path == "/props")
      return responder->send(200, "application/json", R"({"model": "stand-in", "vocab_size": 50})");
    if (request.path == "/metrics") return responder->send(200, "text/plain", "");
    responder->send(status, "text/event-stream", body);
  }};
  HttpServer server_{"127.0.0.1", 0, 1, HttpLimits{}, application_};
};

TEST_F(BenchServeCommand, TellsWhatAServerAnsweredToWhatWasAsked) {
  body = "data: " + json{{"choices", {{{"index", 0}, {"token_ids", {7, 8}}}}}}.dump() + "\n\ndata: " +
         json{{"choices", json::array()},
              {"usage",
               {{"prompt_tokens", 4}, {"completion_tokens", 2}, {"prompt_tokens_details", {{"cached_tokens", 1}}}}}}
             .dump() +
         "\n\ndata: [DONE]\n\n";
  const json result = json::parse(bench({"--requests", "5", "--rate", "250", "--prompt-tokens", "4", "--output-tokens",
                                         "1,3", "--warmup", "0", "--seed", "9", "--slo-ttft-ms", "1e9"}));
  EXPECT_EQ(result["sent"], 5);
  EXPECT_EQ(result["good"], 5);
  EXPECT_EQ(result["rate"], 250);
  EXPECT_EQ(result["seed"], 9);
  EXPECT_EQ(result["total_output_tokens"], 10);
  EXPECT_EQ(result["total_cached_tokens"], 5);
}

TEST_F(BenchServeCommand, FailsWhereNothingWasAnswered) {
  status = 401, body = R"({"error": {"message": "a key is needed"}})";
  try {
    bench({"--requests", "2", "--rate", "1000"});
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("401: a key is needed"), std::string::npos) << e.what();
  }
}

TEST_F(BenchServeCommand, RefusesWhatItCannotMean) {
  for (std::vector<std::string> arguments : {std::vector<std::string>{"--rate", "0"},
                                             {"--requests", "5", "--duration", "5"},
                                             {"--protocol", "x"},
                                             {"--prompt-tokens", "9,1"},
                                             {"--share-prefix", "1.5"},
                                             {"--seed", "-1"}}) {
    arguments.insert(arguments.begin(), "serve");
    EXPECT_THROW(run_command(&add_bench, "bench", arguments), UsageError) << arguments[1];
  }
}

}  // namespace
}  // namespace photon
