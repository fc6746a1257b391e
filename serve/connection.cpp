#include "serve/connection.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/status.hpp>
#include <ctime>
#include <random>
#include <utility>

#include "serve/loggable.h"

namespace photon {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr std::size_t small_read = 4096, body_read = 16384;

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  static constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", days[utc.tm_wday], utc.tm_mday, months[utc.tm_mon],
                     utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

std::string random_prefix() {
  std::random_device random;
  return fmt::format("req-{:08x}", random());
}

}  // namespace

ConnectionPool::ConnectionPool(const HttpLimits& limits_, HttpApplication& application_)
    : limits(limits_), application(application_), id_prefix(random_prefix()) {}

Connection::Connection(std::shared_ptr<ConnectionPool> pool, asio::ip::tcp::socket socket)
    : pool_(std::move(pool)),
      socket_(std::move(socket)),
      read_timer_(socket_.get_executor()),
      write_timer_(socket_.get_executor()) {}

Connection::~Connection() { drop(); }

void Connection::start() {
  asio::post(executor(), [self = shared_from_this()] {
    if (self->state_ != State::idle) return;  // closed meanwhile
    self->expect_read_within(self->pool_->limits.idle_timeout);
    self->read();
  });
}

void Connection::close_if_idle() {
  if (state_ == State::idle) close();
}

void Connection::drop() {
  const auto exchange = answer_.exchange;
  if (state_ == State::answering || state_ == State::flushing) {
    record(/*complete=*/false);
    // What was not taken is not kept for a client that takes nothing.
    error_code ignored;
    if (unsent_ > 0) socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  }
  close();
  if (exchange) exchange->gone();
}

// ---- reading ----

void Connection::read() {
  if (reading_ || state_ == State::closed) return;
  const HttpLimits& limits = pool_->limits;
  // While an answer is on its way, what comes is the next request, or the news that the client has gone.
  if (in_.size() > limits.header_bytes) return watch();
  const std::size_t size = state_ == State::body ? body_read : small_read;
  if (received_.size() != size) received_ = std::vector<char>(size);  // a thousand connections keep little
  reading_ = true;
  socket_.async_read_some(asio::buffer(received_),
                          [self = shared_from_this()](error_code error, std::size_t n) { self->on_read(error, n); });
}

void Connection::on_read(error_code error, std::size_t n) {
  reading_ = false;
  if (state_ == State::closed) return;
  if (error == asio::error::eof && state_ == State::flushing) {  // it has asked all, and is still to be answered
    answer_.keep_alive = false;
    return;
  }
  if (error) return drop();
  if (state_ == State::lingering) return read();
  in_.append(received_.data(), n);
  process();
}

// Enough is read ahead: hears of a client that resets the connection, though not of one that just closes it.
void Connection::watch() {
  if (std::exchange(watching_, true)) return;
  socket_.async_wait(asio::socket_base::wait_error, [self = shared_from_this()](error_code) {
    self->watching_ = false;
    if (self->state_ != State::closed) self->drop();
  });
}

void Connection::process() {
  while (!in_.empty() && (state_ == State::idle || state_ == State::head || state_ == State::body))
    if (!parse()) break;
  if (in_.empty()) in_.shrink_to_fit();
  read();
}

// False: more bytes are needed.
bool Connection::parse() {
  try {
    if (state_ == State::idle) {
      if (in_ == "\r") return false;
      if (in_.starts_with("\r\n")) {  // some clients send one after a body
        in_.erase(0, 2);
        return true;
      }
      state_ = State::head;
      idle_since_ = TimePoint::max();
      parser_.emplace(pool_->limits);
      answer_ = {};
      answer_.begin = steady_clock::now();
      answer_.id = fmt::format("{}-{}", pool_->id_prefix, ++pool_->n_requests);
      expect_read_within(pool_->limits.header_timeout);
    }
    const std::size_t used = parser_->put(in_);
    in_.erase(0, used);
    if (state_ == State::head && parser_->head_complete()) on_head();
    if (state_ == State::body) count_body(parser_->request().body.size());
    if (parser_->complete()) {
      dispatch();
    } else if (used == 0) {
      if (in_.size() > pool_->limits.header_bytes) throw ApiError(400, "A chunk's header, or the trailers, do not end");
      return false;
    }
  } catch (const ApiError& error) {
    refuse(error);
  } catch (const std::exception& error) {
    spdlog::error("{}: {}", answer_.id, loggable(error.what()));
    refuse(ApiError(500, "The server failed"));
  }
  return true;
}

void Connection::on_head() {
  state_ = State::body;
  HttpRequest& request = parser_->request();
  request.id = answer_.id;
  answer_.method = request.method, answer_.path = request.path;
  answer_.keep_alive = parser_->keep_alive();
  answer_.chunks_allowed = parser_->chunks_allowed();
  pool_->application.admit(request, answer_.headers);
  body_counted_ = progress_mark_ = 0;
  expect_read_within(pool_->limits.body_timeout);
  if (parser_->wants_continue() && !parser_->complete() && in_.empty()) {
    queue("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
}

void Connection::count_body(std::size_t bytes) {
  const HttpLimits& limits = pool_->limits;
  const std::size_t all = pool_->buffered_body_bytes += bytes - body_counted_;
  body_counted_ = bytes;
  if (all > limits.buffered_body_bytes) throw ApiError(503, "The server is reading too many large requests");
  if (bytes - progress_mark_ < limits.progress_bytes) return;
  progress_mark_ = bytes;
  expect_read_within(limits.body_timeout);
}

void Connection::expect_read_within(std::chrono::milliseconds time) {
  read_timer_.expires_after(time);
  read_timer_.async_wait([self = shared_from_this()](error_code error) {
    const bool in_force = self->read_timer_.expiry() <= steady_clock::now();  // not set anew meanwhile
    if (!error && in_force) self->on_read_timeout();
  });
}

void Connection::on_read_timeout() {
  switch (state_) {
    case State::idle:
    case State::lingering:
      return close();
    case State::head:
      return refuse(ApiError(408, "The request's headers took too long"));
    case State::body:
      return refuse(ApiError(408, "The request's body took too long"));
    default:
      return;
  }
}

// ---- answering ----

void Connection::dispatch() {
  state_ = State::answering;
  read_timer_.cancel();
  answer_.exchange = std::make_shared<Exchange>(weak_from_this());
  {
    const std::scoped_lock lock(pool_->mutex);
    ++pool_->n_handled;
  }
  const auto responder = answer_.exchange->responder();
  try {
    pool_->application.handle(std::move(parser_->request()), responder);
  } catch (const ApiError& error) {
    send_error(*responder, error);
  } catch (const std::exception& error) {
    spdlog::error("{}: {}", answer_.id, loggable(error.what()));
    send_error(*responder, ApiError(500, "The server failed"));
  }
  pool_->buffered_body_bytes -= std::exchange(body_counted_, 0);
  parser_.reset();
}

// An answer from here, before the request is complete or a handler has it.
void Connection::refuse(const ApiError& error) {
  if (state_ == State::head && parser_) {  // as far as it could be read
    answer_.method = parser_->request().method, answer_.path = parser_->request().path;
  }
  if (!parser_ || !parser_->complete()) answer_.keep_alive = false;  // the rest of it is on its way
  state_ = State::answering;
  read_timer_.cancel();
  pool_->buffered_body_bytes -= std::exchange(body_counted_, 0);
  parser_.reset();
  Responder::Headers headers;
  if (error.retry_after_s) headers.emplace_back("retry-after", fmt::format("{}", *error.retry_after_s));
  send_whole(error.status, "application/json", error_json(error), headers);
}

bool Connection::is_present(const Exchange* from) const {
  return state_ == State::answering && answer_.exchange.get() == from;
}

void Connection::send(const Exchange* from, int status, std::string_view content_type, std::string body,
                      const Responder::Headers& headers) {
  if (!is_present(from)) return;
  if (answer_.status != 0) return drop();  // too late for another: what is missing shows the client that it failed
  send_whole(status, content_type, std::move(body), headers);
}

void Connection::start_events(const Exchange* from, const Responder::Headers& headers) {
  if (!is_present(from) || answer_.status != 0) return;
  Responder::Headers all{{"cache-control", "no-cache"}, {"x-accel-buffering", "no"}};
  all.insert(all.end(), headers.begin(), headers.end());
  answer_.chunked = answer_.chunks_allowed && answer_.method != "HEAD";
  if (!answer_.chunks_allowed) answer_.keep_alive = false;  // the end of the connection is the end of the body
  send_head(200, "text/event-stream; charset=utf-8", all, answer_.chunks_allowed ? "transfer-encoding: chunked" : "");
  flush();
}

void Connection::write(const Exchange* from, std::string bytes) {
  if (!is_present(from) || answer_.status == 0 || bytes.empty() || answer_.method == "HEAD") return;
  if (unsent_ > pool_->limits.unsent_bytes) return drop();
  queue(answer_.chunked ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : std::move(bytes));
  flush();
}

void Connection::finish(const Exchange* from) {
  if (!is_present(from) || answer_.status == 0) return;
  if (answer_.chunked) queue("0\r\n\r\n");
  answer_complete();
}

void Connection::abandon(const Exchange* from) {
  if (!is_present(from)) return;
  if (answer_.status != 0) return drop();
  spdlog::error("{}: its handler gave no answer", answer_.id);
  send_whole(500, "application/json", error_json(ApiError(500, "The server failed")), {});
}

void Connection::send_whole(int status, std::string_view content_type, std::string body,
                            const Responder::Headers& headers) {
  const bool no_content = status == 204 || status == 304;
  send_head(status, content_type, headers, no_content ? "" : fmt::format("content-length: {}", body.size()));
  if (!no_content && answer_.method != "HEAD" && !body.empty()) queue(std::move(body));
  answer_complete();
}

void Connection::send_head(int status, std::string_view content_type, const Responder::Headers& headers,
                           std::string_view body) {
  answer_.status = status;
  if (pool_->draining) answer_.keep_alive = false;
  const auto reason = boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\ndate: {}\r\n", status,
                                 std::string_view(reason.data(), reason.size()), http_date());
  const auto line = [&](std::string_view name, std::string_view value) {
    head += fmt::format("{}: {}\r\n", name, value);
  };
  if (!content_type.empty()) line("content-type", content_type);
  if (!body.empty()) head += fmt::format("{}\r\n", body);
  for (const auto& [name, value] : headers) line(name, value);
  for (const auto& [name, value] : answer_.headers) line(name, value);
  if (!answer_.id.empty()) line("x-request-id", answer_.id);
  line("connection", answer_.keep_alive ? "keep-alive" : "close");
  queue(head + "\r\n");
}

void Connection::answer_complete() {
  if (answer_.exchange) answer_.exchange->complete();
  state_ = State::flushing;
  flush();
}

// ---- writing ----

void Connection::queue(std::string bytes) {
  unsent_ += bytes.size();
  out_.push_back(std::move(bytes));
}

void Connection::flush() {
  if (writing_ || state_ == State::closed) return;
  if (out_.empty()) {
    if (state_ == State::flushing) flushed();
    return;
  }
  const HttpLimits& limits = pool_->limits;
  std::vector<asio::const_buffer> buffers;
  std::size_t skip = front_sent_, room = limits.progress_bytes;
  for (auto bytes = out_.begin(); bytes != out_.end() && room > 0; ++bytes) {
    const std::size_t n = std::min(bytes->size() - skip, room);
    buffers.emplace_back(bytes->data() + skip, n);
    room -= n, skip = 0;
  }
  writing_ = true;
  write_timer_.expires_after(limits.write_timeout);
  write_timer_.async_wait([self = shared_from_this()](error_code error) {
    const bool in_force = self->write_timer_.expiry() <= steady_clock::now();
    if (!error && in_force && self->writing_) self->drop();
  });
  asio::async_write(socket_, buffers,
                    [self = shared_from_this()](error_code error, std::size_t n) { self->on_written(error, n); });
}

void Connection::on_written(error_code error, std::size_t n) {
  writing_ = false;
  if (state_ == State::closed) return;
  if (error) return drop();
  write_timer_.cancel();
  answer_.bytes += static_cast<std::int64_t>(n);
  unsent_ -= n;
  for (n += std::exchange(front_sent_, 0); !out_.empty() && n >= out_.front().size(); out_.pop_front())
    n -= out_.front().size();
  front_sent_ = n;
  flush();
}

void Connection::flushed() {
  record(/*complete=*/true);
  if (!answer_.keep_alive) return linger();
  state_ = State::idle;
  idle_since_ = steady_clock::now();
  answer_ = {};
  if (pool_->draining) return close();
  expect_read_within(pool_->limits.idle_timeout);
  process();
}

// Closing at once could reset the connection before the client has read the answer, where it is still sending.
void Connection::linger() {
  error_code error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error) return close();
  state_ = State::lingering;
  answer_ = {};
  in_.clear();
  expect_read_within(pool_->limits.linger_timeout);
  read();
}

void Connection::record(bool complete) {
  const std::chrono::duration<double, std::milli> time = steady_clock::now() - answer_.begin;
  pool_->application.answered({.method = answer_.method,
                               .path = answer_.path,
                               .id = answer_.id,
                               .status = answer_.status != 0 ? answer_.status : 499,
                               .complete = complete,
                               .ms = time.count(),
                               .bytes = answer_.bytes});
  if (!answer_.exchange) return;
  answer_.exchange.reset();
  const std::scoped_lock lock(pool_->mutex);
  if (--pool_->n_handled == 0) pool_->idle.notify_all();
}

void Connection::close() {
  if (state_ == State::closed) return;
  state_ = State::closed;
  read_timer_.cancel();
  write_timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  pool_->buffered_body_bytes -= std::exchange(body_counted_, 0);
  const std::scoped_lock lock(pool_->mutex);
  pool_->open.erase(this);
}

}  // namespace photon
