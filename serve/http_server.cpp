#include "serve/http_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "serve/connection.h"

namespace photon {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// After the system had no descriptor or memory for another connection.
constexpr std::chrono::milliseconds accept_pause{50};

tcp::acceptor listen(asio::any_io_executor executor, const std::string& host, std::uint16_t port) {
  error_code error;
  const auto endpoints = tcp::resolver(executor).resolve(
      host, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error) throw InputError(fmt::format("--host {}: is no address of this machine ({})", host, error.message()));
  for (const auto& entry : endpoints) {
    tcp::acceptor acceptor(executor);
    acceptor.open(entry.endpoint().protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);  // past connections do not matter
    if (!error) acceptor.bind(entry.endpoint(), error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) return acceptor;
  }
  throw InputError(fmt::format("cannot listen on {} port {}: {}{}", host, port, error.message(),
                               error == asio::error::address_in_use
                                   ? "; is another server running there? choose another port with --port"
                                   : ""));
}

}  // namespace

struct HttpServer::Impl {
  Impl(const std::string& host, std::uint16_t port, const HttpLimits& limits, HttpApplication& application)
      : pool(std::make_shared<ConnectionPool>(limits, application)),
        work(pool->io.get_executor()),
        acceptor(listen(asio::make_strand(pool->io), host, port)),
        pause(acceptor.get_executor()),
        address(acceptor.local_endpoint()) {}

  void accept() {
    acceptor.async_accept(asio::any_io_executor(asio::make_strand(pool->io)),
                          [this](error_code error, tcp::socket socket) { on_accept(error, std::move(socket)); });
  }

  void on_accept(error_code error, tcp::socket socket) {
    if (!acceptor.is_open()) return;
    if (!error) {
      failing = false;
      admit(std::move(socket));
      return accept();
    }
    if (!std::exchange(failing, true)) spdlog::warn("no further connections for now: {}", error.message());
    pause.expires_after(accept_pause);
    pause.async_wait([this](error_code stopped) {
      if (!stopped && acceptor.is_open()) accept();
    });
  }

  void admit(tcp::socket socket) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);  // a token is a packet
    std::shared_ptr<Connection> connection;
    {
      const std::scoped_lock lock(pool->mutex);
      if (closed) return;
      if (pool->open.size() >= pool->limits.connections) end_longest_idle();
      if (pool->open.size() < pool->limits.connections) {
        connection = std::make_shared<Connection>(pool, std::move(socket));
        pool->open.emplace(connection.get(), connection);
      }
    }
    if (connection) return connection->start();
    const std::string body = error_json(ApiError(503, "The server has too many connections"));
    const std::string answer = fmt::format(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n"
        "connection: close\r\n\r\n{}",
        body.size(), body);
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(answer), ignored);
  }

  // Makes room, if a connection waits for a request; pool->mutex is held.
  void end_longest_idle() {
    const auto longest =
        std::ranges::min_element(pool->open, {}, [](const auto& entry) { return entry.first->idle_since(); });
    const auto connection = longest->second.lock();
    if (!connection || connection->idle_since() == Connection::TimePoint::max()) return;
    pool->open.erase(longest);
    asio::post(connection->executor(), [connection] { connection->drop(); });
  }

  template <class Function>
  void for_each_connection(Function function) {
    std::vector<std::shared_ptr<Connection>> connections;
    {
      const std::scoped_lock lock(pool->mutex);
      for (const auto& entry : pool->open) connections.push_back(entry.second.lock());
    }
    for (const auto& connection : connections)
      if (connection) asio::post(connection->executor(), [connection, function] { function(*connection); });
  }

  void run() {
    for (;;) try {
        pool->io.run();
        return;
      } catch (const std::exception& error) {  // the connection that threw is gone, others live on
        spdlog::error("HTTP: {}", error.what());
      }
  }

  std::shared_ptr<ConnectionPool> pool;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  tcp::endpoint address;
  bool failing = false;  // the last accept
  bool closed = false;   // under pool->mutex
  std::vector<std::jthread> threads;
};

HttpServer::HttpServer(const std::string& host, std::uint16_t port, int n_threads, const HttpLimits& limits,
                       HttpApplication& application)
    : impl_(std::make_unique<Impl>(host, port, limits, application)) {
  impl_->accept();
  for (int i = 0; i < n_threads; ++i) impl_->threads.emplace_back([this] { impl_->run(); });
}

HttpServer::~HttpServer() { close(); }

std::uint16_t HttpServer::port() const { return impl_->address.port(); }

std::string HttpServer::url() const {
  const auto address = impl_->address.address();
  const std::string host = address.is_v6() ? "[" + address.to_string() + "]" : address.to_string();
  return fmt::format("http://{}:{}", host, port());
}

bool HttpServer::is_local() const { return impl_->address.address().is_loopback(); }

std::int64_t HttpServer::n_connections() const {
  const std::scoped_lock lock(impl_->pool->mutex);
  return static_cast<std::int64_t>(impl_->pool->open.size());
}

void HttpServer::drain() {
  impl_->pool->draining = true;
  impl_->for_each_connection([](Connection& connection) { connection.close_if_idle(); });
}

bool HttpServer::wait_idle(std::chrono::steady_clock::time_point deadline, std::stop_token stop) {
  std::unique_lock lock(impl_->pool->mutex);
  return impl_->pool->idle.wait_until(lock, stop, deadline, [&] { return impl_->pool->n_handled == 0; });
}

void HttpServer::close() {
  {
    const std::scoped_lock lock(impl_->pool->mutex);
    if (impl_->closed) return;
    impl_->closed = true;
  }
  asio::post(impl_->acceptor.get_executor(), [this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
    impl_->pause.cancel();
  });
  impl_->for_each_connection([](Connection& connection) { connection.drop(); });
  impl_->work.reset();
  impl_->threads.clear();  // joins: nothing is pending any more
}

}  // namespace photon
