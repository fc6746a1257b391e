#include "serve/exchange.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "serve/connection.h"

namespace photon {

/// What the handler holds: when the last reference goes, the exchange is over.
class Exchange::Handle : public Responder {
 public:
  explicit Handle(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() override {
    exchange_->post([](Connection& connection, const Exchange* from) { connection.abandon(from); });
  }

  void send(int status, std::string_view content_type, std::string body, const Headers& headers) override {
    exchange_->post([status, type = std::string(content_type), body = std::move(body), headers](
                        Connection& connection, const Exchange* from) mutable {
      connection.send(from, status, type, std::move(body), headers);
    });
  }
  void start_events(const Headers& headers) override {
    exchange_->post(
        [headers](Connection& connection, const Exchange* from) { connection.start_events(from, headers); });
  }
  void write(std::string bytes) override {
    exchange_->post([bytes = std::move(bytes)](Connection& connection, const Exchange* from) mutable {
      connection.write(from, std::move(bytes));
    });
  }
  void finish() override {
    exchange_->post([](Connection& connection, const Exchange* from) { connection.finish(from); });
  }
  void on_disconnect(std::function<void()> callback) override { exchange_->on_disconnect(std::move(callback)); }

 private:
  std::shared_ptr<Exchange> exchange_;
};

std::shared_ptr<Responder> Exchange::responder() { return std::make_shared<Handle>(shared_from_this()); }

template <class Function>
void Exchange::post(Function function) {
  const auto connection = connection_.lock();
  if (!connection) return;
  // A weak reference: what is posted after the server's threads have ended must not keep the connection.
  boost::asio::post(connection->executor(),
                    [self = shared_from_this(), weak = connection_, function = std::move(function)]() mutable {
                      if (const auto still_there = weak.lock()) function(*still_there, self.get());
                    });
}

void Exchange::on_disconnect(std::function<void()> callback) {
  {
    const std::scoped_lock lock(mutex_);
    if (state_ == State::complete) return;
    if (state_ == State::open) {
      callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

void Exchange::complete() {
  Callbacks unused;  // destroyed without the lock: they may hold the responder
  const std::scoped_lock lock(mutex_);
  if (state_ == State::open) state_ = State::complete;
  unused.swap(callbacks_);
}

void Exchange::gone() {
  Callbacks callbacks;
  {
    const std::scoped_lock lock(mutex_);
    if (state_ != State::open) return;
    state_ = State::gone;
    callbacks.swap(callbacks_);
  }
  for (const auto& callback : callbacks) callback();
}

}  // namespace photon
