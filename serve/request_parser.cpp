#include "serve/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/algorithm/string/case_conv.hpp>
#include <boost/algorithm/string/predicate.hpp>
#include <charconv>
#include <string>

#include "serve/errors.h"

namespace photon {
namespace {

namespace http = boost::beast::http;
using boost::algorithm::iequals;

std::string decode_percent(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned char byte = 0;
    const auto digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2)
      throw ApiError(400, "The path has a '%' without two hexadecimal digits");
    decoded += static_cast<char>(byte);
    i += 2;
  }
  return decoded;
}

// "/path?query" of any of the forms that a request line may have.
std::string_view path_and_query(std::string_view target) {
  if (target == "*" || target.starts_with('/')) return target;
  for (const std::string_view scheme : {"http://", "https://"})
    if (boost::algorithm::istarts_with(target, scheme)) {
      const auto path = target.find('/', scheme.size());
      return path == std::string_view::npos ? "/" : target.substr(path);
    }
  throw ApiError(400, "The request's target is no path");
}

// Of these a second one could hide the first from whoever checks it.
bool must_be_single(std::string_view name) {
  constexpr std::array<std::string_view, 5> names{"host", "authorization", "x-api-key", "content-type", "origin"};
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

RequestParser::RequestParser(const HttpLimits& limits)
    : header_bytes_(limits.header_bytes), n_headers_(limits.n_headers) {
  header_limit(static_cast<std::uint32_t>(limits.header_bytes));
  body_limit(limits.body_bytes);
}

std::size_t RequestParser::put(std::string_view bytes) {
  error_code ec;
  const bool was_head = !head_complete();
  const std::size_t used = basic_parser::put({bytes.data(), bytes.size()}, ec);
  if (was_head) head_size_ += used;
  if (ec == http::error::header_limit || head_size_ > header_bytes_) {
    if (version_ == 0) throw ApiError(414, fmt::format("The request line is longer than {} bytes", header_bytes_));
    throw ApiError(431, fmt::format("The headers are longer than {} bytes", header_bytes_));
  }
  if (ec == http::error::body_limit) throw ApiError(413, "The body is larger than this server takes");
  if (ec == http::error::bad_version) throw ApiError(400, "This is no HTTP/1.1 or HTTP/1.0 request");
  if (ec && ec != http::error::need_more) throw ApiError(400, "This is no HTTP request: " + ec.message());
  return used;
}

void RequestParser::on_request_impl(http::verb, text method, text target, int version, error_code& ec) {
  ec = {};
  version_ = version;
  request_.method.assign(method.data(), method.size());
  const std::string_view whole = path_and_query({target.data(), target.size()});
  const auto question = whole.find('?');
  request_.path = decode_percent(whole.substr(0, question));
  if (question != std::string_view::npos) request_.query = whole.substr(question + 1);
}

void RequestParser::on_field_impl(http::field, text name, text value, error_code& ec) {
  ec = {};
  if (head_done_) return;  // trailers: what was checked stays as it is
  if (request_.headers.size() >= n_headers_)
    throw ApiError(431, fmt::format("There are more than {} headers", n_headers_));
  std::string key(name.data(), name.size());
  boost::algorithm::to_lower(key);
  if (must_be_single(key) && std::ranges::any_of(request_.headers, [&](const auto& h) { return h.first == key; }))
    throw ApiError(400, fmt::format("There are two headers '{}'", key));
  request_.headers.emplace_back(std::move(key), std::string(value.data(), value.size()));
}

void RequestParser::on_header_impl(error_code& ec) {
  ec = {};
  head_done_ = true;
  const auto has = [&](std::string_view name) {
    return std::ranges::any_of(request_.headers, [&](const auto& h) { return h.first == name; });
  };
  if (version_ == 11 && !has("host")) throw ApiError(400, "There is no header 'host'");
  // Whoever stands between us and the client may have understood another coding, and another end of the request.
  if (has("transfer-encoding") && (version_ != 11 || !iequals(request_.header("transfer-encoding"), "chunked")))
    throw ApiError(501, "The only transfer-encoding is chunked");
  if (request_.method == "POST" && !has("content-length") && !has("transfer-encoding"))
    throw ApiError(411, "A POST needs a content-length");
  if (!has("expect") || version_ != 11) return;
  if (!iequals(request_.header("expect"), "100-continue")) throw ApiError(417, "The only expectation is 100-continue");
  wants_continue_ = true;
}

std::size_t RequestParser::on_body_impl(text bytes, error_code& ec) {
  ec = {};
  request_.body.append(bytes.data(), bytes.size());
  return bytes.size();
}

}  // namespace photon
