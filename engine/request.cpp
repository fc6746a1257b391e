#include "engine/request.h"

#include <fmt/format.h>

#include "base/error.h"

namespace photon {
namespace {

double per_second(std::int64_t n, double ms) { return ms > 0 ? static_cast<double>(n) * 1e3 / ms : 0; }

}  // namespace

void check_tokens(const Spec& spec, std::span<const std::int32_t> tokens) {
  for (std::int64_t i = 0; i < std::ssize(tokens); ++i)
    if (tokens[i] < 0 || tokens[i] >= spec.vocab_size)
      throw InputError(fmt::format("token {} of the input is {}, the model's ids are 0 to {}", i + 1, tokens[i],
                                   spec.vocab_size - 1));
}

void check_protocol(const Spec& spec, Protocol protocol) {
  if (protocol == Protocol::recgen && spec.n_levels() == 0)
    throw FieldError("protocol", "recgen needs a model with levels, this one is vanilla; use hiergen");
}

void check_options(const Request& r) {
  check(r.sampler);
  if (r.n_tokens < 0) throw FieldError("n_tokens", fmt::format("is {}, must be 0 or more", r.n_tokens));
  if (r.n_continuations < 1)
    throw FieldError("n_continuations", fmt::format("is {}, must be 1 or more", r.n_continuations));
}

void check(const Request& r, const Spec& spec) {
  check_tokens(spec, r.prompt);
  check_protocol(spec, r.protocol);
  check_options(r);
  for (const auto& [token, bias] : r.sampler.logit_bias)
    if (token >= spec.vocab_size)
      throw FieldError("logit_bias",
                       fmt::format("names token {}, the model's ids are 0 to {}", token, spec.vocab_size - 1));
  if (const std::int64_t n = r.n_top_logprobs.value_or(0); n < 0 || n > spec.vocab_size)
    throw FieldError("n_top_logprobs", fmt::format("is {}, must be from 0 to {}", n, spec.vocab_size));
}

double RequestStats::prefill_tokens_per_s() const { return per_second(prompt_tokens, prefill_ms); }
double RequestStats::decode_tokens_per_s() const { return per_second(decode_tokens, decode_ms); }
double RequestStats::decode_gb_per_s() const {
  return per_second(decode_weight_bytes_read + decode_kv.bytes_read + decode_kv.bytes_written, decode_ms) * 1e-9;
}

}  // namespace photon
