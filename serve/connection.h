// One client's connection: requests in, answers out, in order, each step with its deadline.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "serve/errors.h"
#include "serve/exchange.h"
#include "serve/http.h"
#include "serve/options.h"
#include "serve/request_parser.h"

namespace photon {

/// What the connections of a server have in common.
struct ConnectionPool {
  ConnectionPool(const HttpLimits& limits_, HttpApplication& application_);

  boost::asio::io_context io;
  const HttpLimits limits;
  HttpApplication& application;
  const std::string id_prefix;  // of request ids
  std::atomic<std::uint64_t> n_requests = 0;
  std::atomic<bool> draining = false;
  std::atomic<std::size_t> buffered_body_bytes = 0;

  std::mutex mutex;
  std::condition_variable_any idle;
  std::int64_t n_handled = 0;  // requests that a handler has, or whose answer is being sent
  std::unordered_map<Connection*, std::weak_ptr<Connection>> open;
};

/// Everything but the constructor, executor(), idle_since() and the destructor runs on the connection's strand.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<ConnectionPool> pool, boost::asio::ip::tcp::socket socket);
  ~Connection();

  boost::asio::any_io_executor executor() { return socket_.get_executor(); }
  using TimePoint = std::chrono::steady_clock::time_point;
  /// When it began to wait for a request; TimePoint::max() while there is one.
  TimePoint idle_since() const { return idle_since_; }
  void start();
  void close_if_idle();
  /// The client is given up; a handler that still works hears of it.
  void drop();

  // From the handler; each is ignored once the exchange is not the present one any more.
  void send(const Exchange* from, int status, std::string_view content_type, std::string body,
            const Responder::Headers& headers);
  void start_events(const Exchange* from, const Responder::Headers& headers);
  void write(const Exchange* from, std::string bytes);
  void finish(const Exchange* from);
  void abandon(const Exchange* from);

 private:
  enum class State {
    idle,       // between requests
    head,       // a request has begun
    body,       // its head is complete, and admitted
    answering,  // a handler has it
    flushing,   // the answer is complete, but not sent
    lingering,  // the last answer is sent: the client may still send, until it has read it
    closed,
  };

  void read();
  void on_read(boost::system::error_code error, std::size_t n);
  void watch();
  void process();
  bool parse();
  void on_head();
  void count_body(std::size_t bytes);
  void dispatch();
  void refuse(const ApiError& error);

  /// @param body  "content-length: 5" or what else says where the body ends; empty if nothing has to
  void send_head(int status, std::string_view content_type, const Responder::Headers& headers, std::string_view body);
  void send_whole(int status, std::string_view content_type, std::string body, const Responder::Headers& headers);
  bool is_present(const Exchange* from) const;
  void answer_complete();
  void queue(std::string bytes);
  void flush();
  void on_written(boost::system::error_code error, std::size_t n);
  void flushed();
  void linger();
  void record(bool complete);
  void close();

  void expect_read_within(std::chrono::milliseconds time);
  void on_read_timeout();

  std::shared_ptr<ConnectionPool> pool_;  // first: the socket and timers need it to the end
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer read_timer_, write_timer_;
  State state_ = State::idle;
  std::atomic<TimePoint> idle_since_ = std::chrono::steady_clock::now();

  std::vector<char> received_;  // where a read puts what it gets
  std::string in_;              // what has not been parsed
  bool reading_ = false, watching_ = false;
  std::optional<RequestParser> parser_;
  std::size_t body_counted_ = 0, progress_mark_ = 0;  // bytes of the body: in the pool's count; when the timer began

  // The request that is being read or answered.
  struct Answer {
    std::string method, path, id;
    Responder::Headers headers{};  // those that were added when it was admitted
    TimePoint begin{};
    std::shared_ptr<Exchange> exchange{};  // null: no handler has it
    bool keep_alive = false, chunks_allowed = true, chunked = false;
    int status = 0;  // 0: not begun
    std::int64_t bytes = 0;
  } answer_;

  std::deque<std::string> out_;
  std::size_t front_sent_ = 0, unsent_ = 0;  // bytes of out_.front(); of all
  bool writing_ = false;
};

}  // namespace photon
