#include "serve/errors.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace photon {
namespace {

TEST(Errors, BodiesAreOpenAis) {
  EXPECT_EQ(error_json(invalid_request("n must be 1 or more", "n")),
            R"({"error":{"message":"n must be 1 or more","type":"invalid_request_error","param":"n","code":null}})");
  EXPECT_EQ(error_json(ApiError(400, "too long", "prompt", "context_length_exceeded")),
            R"({"error":{"message":"too long","type":"invalid_request_error","param":"prompt",)"
            R"("code":"context_length_exceeded"}})");
  EXPECT_EQ(error_json(ApiError(503, "Loading model")),
            R"({"error":{"message":"Loading model","type":"unavailable_error","param":null,"code":503}})");
}

TEST(Errors, EveryStatusHasItsType) {
  const std::vector<std::pair<int, std::string>> types{{400, "invalid_request_error"}, {401, "authentication_error"},
                                                       {403, "permission_error"},      {404, "not_found_error"},
                                                       {405, "invalid_request_error"}, {413, "invalid_request_error"},
                                                       {429, "rate_limit_error"},      {500, "server_error"},
                                                       {501, "not_supported_error"},   {503, "unavailable_error"}};
  for (const auto& [status, type] : types)
    EXPECT_EQ(nlohmann::json::parse(error_json(ApiError(status, "x"))).at("error").at("type"), type) << status;
}

TEST(Errors, WhatAClientSentCannotBreakTheBody) {
  const std::string message = "bad \"name\" \xff\x01\n";
  const auto parsed = nlohmann::json::parse(error_json(invalid_request(message, "\xc3")));
  EXPECT_EQ(parsed.at("error").at("message"), "bad \"name\" \xef\xbf\xbd\x01\n");
}

}  // namespace
}  // namespace photon
