// For the tests of serve/: a client that sends what bytes it likes, and an application of one function.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "serve/http.h"

namespace photon::testing_support {

using namespace std::chrono_literals;

/// Far more than anything here takes: what exceeds it has failed.
inline constexpr std::chrono::milliseconds patience = 20s;

/// Waits for something that another thread does; false if it does not happen.
class Signal {
 public:
  void set() {
    const std::scoped_lock lock(mutex_);
    ++n_;
    changed_.notify_all();
  }
  bool wait(int n = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return n_ >= n; });
  }
  int count() {
    const std::scoped_lock lock(mutex_);
    return n_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_ = 0;
};

/// Whether something comes true while there is patience.
template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

struct HttpAnswer {
  int status = 0;  // 0: the connection ended instead
  std::map<std::string, std::string> headers{};
  std::string body{};
  bool whole = false;  // as long as its headers say
};

/// A socket of 127.0.0.1.
class Client {
 public:
  /// @param receive_buffer  of the kernel, bytes; 0: its default
  explicit Client(std::uint16_t port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (fd_ < 0) return;
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET, address.sin_port = htons(port), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) close();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  Client(Client&& other) noexcept : fd_(std::exchange(other.fd_, -1)), in_(std::move(other.in_)) {}
  ~Client() { close(); }

  bool connected() const { return fd_ >= 0; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void reset() {  // RST instead of FIN
    const linger now{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }

  /// False if the server has closed the connection.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  /// More bytes into the buffer; false at the end of the connection, or where patience ends.
  bool receive(std::chrono::milliseconds time = patience) {
    pollfd events{.fd = fd_, .events = POLLIN, .revents = 0};
    char bytes[16384];
    if (::poll(&events, 1, static_cast<int>(time.count())) <= 0) return false;
    const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    in_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }
  /// The connection ends, and nothing more comes before.
  bool ends() { return in_.empty() && !receive() && ended(); }
  std::string& received() { return in_; }
  /// Receives until `text` has come.
  bool sees(std::string_view text) {
    while (in_.find(text) == std::string::npos)
      if (!receive()) return false;
    return true;
  }

  /// The next answer; a body without a length goes on to the end of the connection.
  HttpAnswer read_answer(bool head = false) {
    HttpAnswer answer;
    if (!sees("\r\n\r\n")) return answer;
    const auto end = in_.find("\r\n\r\n");
    const std::string text = in_.substr(0, end);
    in_.erase(0, end + 4);
    answer.status = std::stoi(text.substr(std::string("HTTP/1.1 ").size()));
    for (auto line = text.find("\r\n"); line != std::string::npos;) {
      const auto next = text.find("\r\n", line + 2);
      const std::string header = text.substr(line + 2, next == std::string::npos ? next : next - line - 2);
      answer.headers[header.substr(0, header.find(": "))] = header.substr(header.find(": ") + 2);
      line = next;
    }
    if (answer.status == 100) return answer;
    if (head || answer.status == 204) {
      answer.whole = true;
    } else if (answer.headers.contains("content-length")) {
      answer.whole = read_bytes(std::stoul(answer.headers["content-length"]), answer.body);
    } else if (answer.headers.contains("transfer-encoding")) {
      answer.whole = read_chunks(answer.body);
    } else {
      while (receive()) continue;
      answer.body = std::exchange(in_, {});
      answer.whole = true;
    }
    return answer;
  }
  HttpAnswer ask(std::string_view request) {
    send(request);
    return read_answer(request.starts_with("HEAD "));
  }

 private:
  bool ended() const {
    char byte = 0;
    return ::recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }
  bool read_bytes(std::size_t n, std::string& to) {
    while (in_.size() < n)
      if (!receive()) return false;
    to += in_.substr(0, n);
    in_.erase(0, n);
    return true;
  }
  bool read_chunks(std::string& to) {
    for (;;) {
      if (!sees("\r\n")) return false;
      const std::size_t n = std::stoul(in_, nullptr, 16);
      in_.erase(0, in_.find("\r\n") + 2);
      std::string ending;
      if (!read_bytes(n, to) || !read_bytes(2, ending)) return false;
      if (n == 0) return true;
    }
  }

  int fd_;
  std::string in_;
};

inline std::string get(const std::string& path, const std::string& headers = {}) {
  return fmt::format("GET {} HTTP/1.1\r\nhost: x\r\n{}\r\n", path, headers);
}
inline std::string post(const std::string& path, const std::string& body, const std::string& headers = {}) {
  return fmt::format("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{}\r\n{}", path, body.size(), headers, body);
}

/// What a handler is told and does; answers are written down.
struct Application : HttpApplication {
  using Admit = std::function<void(const HttpRequest&, Responder::Headers&)>;
  explicit Application(HttpHandler handler_, Admit admit_ = {})
      : handler(std::move(handler_)), on_admit(std::move(admit_)) {}

  void admit(const HttpRequest& head, Responder::Headers& headers) override {
    if (on_admit) on_admit(head, headers);
  }
  void handle(HttpRequest request, std::shared_ptr<Responder> responder) override {
    handler(std::move(request), std::move(responder));
  }
  void answered(const AccessRecord& record) override {
    {
      const std::scoped_lock lock(mutex_);
      records_.push_back({fmt::format("{} {}", record.method, record.path), record.status, record.complete});
    }
    n_answered.set();
  }

  struct Record {
    std::string request;
    int status;
    bool complete;
    bool operator==(const Record&) const = default;
  };
  std::vector<Record> records() {
    const std::scoped_lock lock(mutex_);
    return records_;
  }

  const HttpHandler handler;
  const Admit on_admit;
  Signal n_answered;

 private:
  std::mutex mutex_;
  std::vector<Record> records_;
};

/// The body is what was asked.
inline void echo(HttpRequest request, std::shared_ptr<Responder> responder) {
  responder->send(200, "text/plain", request.method + " " + request.path + " " + request.body);
}

}  // namespace photon::testing_support
