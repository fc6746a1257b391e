#include "bench/serve_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/system/system_error.hpp>
#include <exception>
#include <limits>
#include <utility>

#include "base/error.h"

namespace photon {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using asio::ip::tcp;

constexpr std::string_view scheme = "http://";

std::string excerpt(std::string_view text) {
  constexpr std::size_t most = 300;
  std::string line(text.substr(0, most));
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  return line;
}

}  // namespace

ServerUrl parse_server_url(std::string_view text) {
  const auto refuse = [&](std::string_view why) -> InputError {
    return InputError(fmt::format("'{}' {}; give the server as http://127.0.0.1:8080", text, why));
  };
  if (!text.starts_with(scheme)) throw refuse("does not begin with http://");
  std::string_view rest = text.substr(scheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find_first_of("/?#@ ") != std::string_view::npos) throw refuse("is more than a host and a port");
  ServerUrl url{.host = {}, .port = "80", .text = std::string(scheme) + std::string(rest)};
  const bool bracketed = rest.starts_with('[');
  const auto end = bracketed ? rest.find(']') : std::min(rest.find(':'), rest.size());
  if (end == std::string_view::npos) throw refuse("has a '[' without a ']'");
  url.host = rest.substr(bracketed, end - bracketed);
  const std::string_view after = rest.substr(end + bracketed);
  if (url.host.empty()) throw refuse("names no host");
  if (!after.empty()) {
    url.port = after.substr(1);
    const bool digits = std::ranges::all_of(url.port, [](char c) { return c >= '0' && c <= '9'; });
    if (after.front() != ':' || url.port.empty() || url.port.size() > 5 || !digits || std::stoi(url.port) > 65535)
      throw refuse("has no port from 0 to 65535");
  }
  return url;
}

HttpClient::HttpClient(std::string_view url) : url_(parse_server_url(url)) {
  asio::io_context io;
  try {
    for (const auto& entry : tcp::resolver(io).resolve(url_.host, url_.port)) endpoints_.push_back(entry.endpoint());
  } catch (const boost::system::system_error& e) {
    throw InputError(fmt::format("{}: the host {} is not found: {}", url_.text, url_.host, e.code().message()));
  }
}

asio::awaitable<int> HttpClient::exchange(ClientRequest request, OnBytes on_bytes) const {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  stream.expires_after(request.timeout);
  co_await stream.async_connect(endpoints_, use_awaitable);
  stream.socket().set_option(tcp::no_delay(true));

  http::request<http::string_body> message(http::string_to_verb(request.method), request.path, 11);
  message.set(http::field::host, url_.text.substr(scheme.size()));
  message.set(http::field::connection, "close");
  if (!request.api_key.empty()) message.set(http::field::authorization, "Bearer " + request.api_key);
  if (!request.body.empty()) message.set(http::field::content_type, "application/json");
  message.body() = std::move(request.body);
  message.prepare_payload();
  co_await http::async_write(stream, message, use_awaitable);

  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(std::numeric_limits<std::uint64_t>::max());  // of the whole body: it is taken away piece by piece
  co_await http::async_read_header(stream, buffer, parser, use_awaitable);
  for (;;) {
    if (std::string& body = parser.get().body(); !body.empty()) {
      on_bytes(body);
      body.clear();
    }
    if (parser.is_done()) break;
    co_await http::async_read_some(stream, buffer, parser, use_awaitable);
  }
  co_return static_cast<int>(parser.get().result_int());
}

std::string HttpClient::fetch(const ClientRequest& request) const {
  asio::io_context io(1);
  std::string body;
  int status = 0;
  asio::co_spawn(io, exchange(request, [&](std::string_view bytes) { body += bytes; }),
                 [&](const std::exception_ptr& error, int answered) {
                   if (error) std::rethrow_exception(error);
                   status = answered;
                 });
  try {
    io.run();
  } catch (const boost::system::system_error& e) {
    throw InputError(fmt::format("{}: no answer ({}); is photon serve running there?", url_.text, e.code().message()));
  }
  if (status != 200)
    throw InputError(fmt::format("{}{}: answered {}: {}", url_.text, request.path, status, excerpt(body)));
  return body;
}

void EventReader::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_data) {
  constexpr std::string_view field = "data: ";  // our servers say each event in one line
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    if (line_.ends_with('\r')) line_.pop_back();
    if (line_.starts_with(field)) on_data(std::string_view(line_).substr(field.size()));
    line_.clear();
  }
}

}  // namespace photon
