#include "eval/request.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "eval/python_text.h"

namespace photon {

EncodedRequest encode_request(const Tokenizer& tokenizer, std::int32_t prefix, const ScoreRequest& request) {
  const std::string_view context = right_strip(request.context);
  const std::vector<std::int32_t> whole = tokenizer.encode(request.context + request.continuation),
                                  given = context.empty() ? std::vector<std::int32_t>() : tokenizer.encode(context);
  EncodedRequest encoded;
  encoded.context.push_back(prefix);
  encoded.context.insert(encoded.context.end(), given.begin(), given.end());
  encoded.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(std::min(given.size(), whole.size())),
                              whole.end());
  return encoded;
}

void truncate(EncodedRequest& request, std::int64_t max_length) {
  const std::int64_t n_scored = std::ssize(request.continuation);
  if (n_scored == 0) throw InputError("has nothing to score: its context's tokens are all there are");
  if (n_scored > max_length)
    throw InputError(fmt::format("has {} tokens to score, --max-length is {}", n_scored, max_length));
  request.n_cut = std::max<std::int64_t>(0, std::ssize(request.context) + n_scored - (max_length + 1));
  request.context.erase(request.context.begin(), request.context.begin() + request.n_cut);
}

std::vector<EncodedRequest> rolling_windows(std::span<const std::int32_t> tokens, std::int32_t prefix,
                                            std::int64_t max_length) {
  std::vector<EncodedRequest> windows;
  for (std::int64_t from = 0; from < std::ssize(tokens);) {
    const std::int64_t end = from + std::min(max_length, std::ssize(tokens) - from);
    EncodedRequest& window = windows.emplace_back();
    if (from == 0)
      window.context.push_back(prefix);
    else
      window.context.assign(tokens.begin() + (end - max_length - 1), tokens.begin() + from);
    window.continuation.assign(tokens.begin() + from, tokens.begin() + end);
    from = end;
  }
  return windows;
}

}  // namespace photon
