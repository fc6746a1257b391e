// A small HTTP client for load generation: asynchronous, each request over a connection of its own, answers heard as
// they arrive.
#pragma once

#include <utility>  // first: awaitable.hpp of Boost 1.74 uses it without saying so

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace photon {

struct ServerUrl {
  std::string host, port;  // host without the brackets of an IPv6 address
  std::string text;        // "http://127.0.0.1:8080", for messages
};
/// @throws InputError for anything but http://HOST[:PORT][/]
ServerUrl parse_server_url(std::string_view text);

struct ClientRequest {
  std::string method = "GET", path = "/", body{}, api_key{};
  std::chrono::milliseconds timeout{10'000};  // of all of it
};

/// Asks one server.  For one thread; exchanges may overlap.
class HttpClient {
 public:
  using OnBytes = std::function<void(std::string_view bytes)>;

  /// @throws InputError if the URL is none, or its host is unknown
  explicit HttpClient(std::string_view url);
  const std::string& url() const { return url_.text; }

  /// Sends a request and hears the body of its answer, of whatever status.  @returns the status.
  /// @throws boost::system::system_error
  boost::asio::awaitable<int> exchange(ClientRequest request, OnBytes on_bytes) const;
  /// One request, waited for.  @throws InputError saying why there is no answer, or that its status is not 200
  std::string fetch(const ClientRequest& request) const;

 private:
  ServerUrl url_;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints_;
};

/// Cuts a stream of server-sent events into what they say.
class EventReader {
 public:
  /// Calls `on_data` with the data of every event that is complete.
  void feed(std::string_view bytes, const std::function<void(std::string_view data)>& on_data);

 private:
  std::string line_;
};

}  // namespace photon
