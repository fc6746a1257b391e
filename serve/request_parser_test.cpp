#include "serve/request_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "serve/errors.h"

namespace photon {
namespace {

struct Parsed {
  int error = 0;  // its status; 0: none
  bool complete = false;
  std::string method, path, query, body, rest;
  std::vector<std::pair<std::string, std::string>> headers;
  bool operator==(const Parsed&) const = default;
};

// The bytes come in pieces: `next` says how many at a time.
template <class Next>
Parsed parse(std::string_view bytes, Next next, const HttpLimits& limits = {}) {
  RequestParser parser(limits);
  std::string pending;
  Parsed parsed;
  try {
    while (!parser.complete()) {
      const std::size_t used = pending.empty() ? 0 : parser.put(pending);
      pending.erase(0, used);
      if (used > 0) continue;
      if (bytes.empty()) break;
      const std::size_t n = std::min(bytes.size(), next());
      pending += bytes.substr(0, n);
      bytes.remove_prefix(n);
    }
  } catch (const ApiError& error) {
    parsed.error = error.status;
    return parsed;
  }
  const HttpRequest& request = parser.request();
  parsed.complete = parser.complete();
  parsed.method = request.method, parsed.path = request.path, parsed.query = request.query, parsed.body = request.body;
  parsed.headers = request.headers;
  parsed.rest = pending + std::string(bytes);
  return parsed;
}

Parsed parse_whole(std::string_view bytes, const HttpLimits& limits = {}) {
  return parse(
      bytes, [] { return std::size_t{1} << 20; }, limits);
}

TEST(RequestParser, TakesARequestApart) {
  const Parsed parsed =
      parse_whole("POST /a%2Fb%20c?d=%20e HTTP/1.1\r\nHost: x\r\nX-Y:  z \r\nContent-Length: 3\r\n\r\nabcGET /");
  EXPECT_EQ(parsed.method, "POST");
  EXPECT_EQ(parsed.path, "/a/b c");
  EXPECT_EQ(parsed.query, "d=%20e");
  EXPECT_EQ(parsed.body, "abc");
  EXPECT_EQ(parsed.rest, "GET /");
  EXPECT_EQ(parsed.headers,
            (std::vector<std::pair<std::string, std::string>>{{"host", "x"}, {"x-y", "z"}, {"content-length", "3"}}));
}

TEST(RequestParser, HowTheBytesAreCutDoesNotMatter) {
  const std::vector<std::string> requests{
      "GET / HTTP/1.1\r\nhost: x\r\n\r\nrest",
      "GET http://x/y?z HTTP/1.1\r\nhost: x\r\na: b\r\n\r\n",
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\nabcdefghijkl",
      "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: "
      "u\r\n\r\nrest",
      "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nab",
      "GET /%4 HTTP/1.1\r\nhost: x\r\n\r\n",
  };
  Random random(1);
  for (const std::string& request : requests) {
    SCOPED_TRACE(request);
    const Parsed want = parse_whole(request, {.body_bytes = 100});
    EXPECT_EQ(parse(request, [] { return std::size_t{1}; }, {.body_bytes = 100}), want);
    for (int i = 0; i < 50; ++i)
      EXPECT_EQ(parse(request, [&] { return static_cast<std::size_t>(1 + random.below(8)); }, {.body_bytes = 100}),
                want);
  }
}

TEST(RequestParser, HeadersInManyPiecesAreCountedTogether) {
  std::string request = "GET / HTTP/1.1\r\nhost: abcdefg\r\n";
  const std::size_t line = std::string("host: abcdefg\r\n").size();
  for (int i = 0; i < 100; ++i) request += "name: abcdefg\r\n";
  std::size_t n_pieces = 0;  // each shows one byte of the next header: this one is complete, and taken
  const auto next = [&] { return n_pieces++ == 0 ? std::string("GET / HTTP/1.1\r\nh").size() : line; };
  EXPECT_EQ(parse(request, next, {.header_bytes = 1000, .n_headers = 1000}).error, 431);
}

TEST(RequestParser, TrailersAreNoHeaders) {
  const Parsed parsed = parse_whole(
      "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nauthorization: Bearer stolen\r\n\r\n");
  ASSERT_TRUE(parsed.complete);
  for (const auto& [name, value] : parsed.headers) EXPECT_NE(name, "authorization");
}

TEST(RequestParser, AnythingIsARequestOrAnError) {  // noise, and requests with noise in them
  Random random(2);
  const std::string good =
      "POST /v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
  int n_complete = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = i % 4 == 0 ? std::string(static_cast<std::size_t>(random.below(60)), ' ') : good;
    const std::int64_t n_changes = i % 4 == 0 ? static_cast<std::int64_t>(bytes.size()) : random.below(3);
    for (std::int64_t k = 0; k < n_changes; ++k)
      bytes[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(bytes.size())))] =
          static_cast<char>(random.below(256));
    const Parsed parsed = parse(bytes, [&] { return static_cast<std::size_t>(1 + random.below(40)); },
                                {.body_bytes = 100, .header_bytes = 200});
    n_complete += parsed.complete ? 1 : 0;
    if (parsed.error != 0) {
      EXPECT_GE(parsed.error, 400);
      EXPECT_LE(parsed.error, 501);
    }
  }
  EXPECT_GT(n_complete, 1000);
}

}  // namespace
}  // namespace photon
