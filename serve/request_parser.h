// One HTTP/1.x request from bytes, strictly and within limits.
#pragma once

#include <boost/beast/http/basic_parser.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "serve/http.h"
#include "serve/options.h"

namespace photon {

class RequestParser : private boost::beast::http::basic_parser<true> {
 public:
  explicit RequestParser(const HttpLimits& limits);

  /// Takes what it can use of `bytes`, at most to the end of the head or of the request, and says how many; 0: what is
  /// there does not suffice, show it again with more after it.
  /// @throws ApiError: 400, 411, 413, 414, 417, 431, 501.  The connection cannot be read further then.
  std::size_t put(std::string_view bytes);

  bool head_complete() { return is_header_done(); }
  bool complete() { return is_done(); }
  HttpRequest& request() { return request_; }
  const HttpRequest& request() const { return request_; }
  // Once the head is complete:
  bool keep_alive() const { return basic_parser::keep_alive(); }
  bool chunks_allowed() const { return version_ == 11; }  // in the answer
  bool wants_continue() const { return wants_continue_; }

 private:
  using error_code = boost::beast::error_code;
  using text = boost::beast::string_view;

  void on_request_impl(boost::beast::http::verb, text method, text target, int version, error_code& ec) override;
  void on_response_impl(int, text, int, error_code&) override {}
  void on_field_impl(boost::beast::http::field, text name, text value, error_code& ec) override;
  void on_header_impl(error_code& ec) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code& ec) override { ec = {}; }
  std::size_t on_body_impl(text bytes, error_code& ec) override;
  void on_chunk_header_impl(std::uint64_t, text, error_code& ec) override { ec = {}; }
  std::size_t on_chunk_body_impl(std::uint64_t, text bytes, error_code& ec) override { return on_body_impl(bytes, ec); }
  void on_finish_impl(error_code& ec) override { ec = {}; }

  HttpRequest request_;
  std::size_t header_bytes_, n_headers_, head_size_ = 0;
  int version_ = 0;  // 0: the request line is not complete
  bool head_done_ = false, wants_continue_ = false;
};

}  // namespace photon
