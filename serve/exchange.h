// A request in the hands of a handler, and its answer on the way to the connection's strand.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "serve/http.h"

namespace photon {

class Connection;

/// Shared by a connection and the responder that it gave out.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  explicit Exchange(std::weak_ptr<Connection> connection) : connection_(std::move(connection)) {}

  std::shared_ptr<Responder> responder();

  // From the connection: the handler has said all, or need say no more.
  void complete();
  void gone();

 private:
  class Handle;
  using Callbacks = std::vector<std::function<void()>>;

  /// Runs on the connection's strand, if there still is a connection.
  template <class Function>
  void post(Function function);
  void on_disconnect(std::function<void()> callback);

  std::weak_ptr<Connection> connection_;
  std::mutex mutex_;
  enum class State { open, complete, gone } state_ = State::open;
  Callbacks callbacks_;
};

}  // namespace photon
