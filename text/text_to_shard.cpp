// Tokenises text files into a shard.  docs/data-format.md.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

#include "base/error.h"
#include "base/threads.h"
#include "text/documents.h"
#include "text/packed_ids.h"
#include "text/shard.h"
#include "text/tokenizer.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

// work(0) … work(n-1) on all usable CPUs; the first error is rethrown here.
template <class Work>
void parallel_for(std::size_t n, const Work& work) {
  const auto n_threads = std::min(n, static_cast<std::size_t>(usable_cpus()));
  std::vector<std::exception_ptr> errors(n_threads);
  std::atomic<std::size_t> next = 0;
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < n_threads; ++t)
    threads.emplace_back([&, t] {
      try {
        for (std::size_t i = next++; i < n; i = next++) work(i);
      } catch (...) {
        errors[t] = std::current_exception();
      }
    });
  threads.clear();  // joins
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

// Tokenises file by file and hands over packed ids document by document, in order.
class Tokenising {
 public:
  Tokenising(const Tokenizer& tokenizer, std::int64_t max_tokens, FileWriter& out)
      : tokenizer_(tokenizer), max_tokens_(max_tokens), out_(out) {}

  void add_file(const fs::path& path) {
    const MappedFile file(path);
    const auto all = documents(file);
    for (std::size_t begin = 0, end = 0; begin < all.size() && !full(); begin = end) {
      std::size_t bytes = 0;
      while (end < all.size() && bytes < batch_bytes) bytes += all[end++].size();
      add_batch(std::span(all).subspan(begin, end - begin));
      if (const auto now = std::chrono::steady_clock::now(); now - reported_ > std::chrono::seconds(2)) {
        reported_ = now;
        spdlog::info("shard: {}: document {} of {}, {} tokens", path.string(), end, all.size(), report_.tokens);
      }
    }
  }
  const ShardReport& report() const { return report_; }

 private:
  static constexpr std::size_t batch_bytes = 4 << 20;

  bool full() const { return max_tokens_ > 0 && report_.tokens >= max_tokens_; }

  void add_batch(std::span<const std::string_view> batch) {
    std::vector<std::vector<std::int32_t>> encoded(batch.size());
    parallel_for(batch.size(), [&](std::size_t i) { encoded[i] = tokenizer_.encode(batch[i]); });
    for (std::size_t i = 0; i < batch.size() && !full(); ++i) {
      auto& ids = encoded[i];
      ids.insert(ids.begin(), static_cast<std::int32_t>(tokenizer_.bos_token_id()));
      ids.push_back(static_cast<std::int32_t>(tokenizer_.eos_token_id()));
      out_.write(pack(ids, tokenizer_.vocab_size()));
      report_.documents += 1;
      report_.tokens += static_cast<std::int64_t>(ids.size());
      report_.text_bytes += static_cast<std::int64_t>(batch[i].size());
    }
  }

  const Tokenizer& tokenizer_;
  std::int64_t max_tokens_;
  FileWriter& out_;
  ShardReport report_;
  std::chrono::steady_clock::time_point reported_ = std::chrono::steady_clock::now();
};

struct RemovedAtEnd {
  fs::path path;
  ~RemovedAtEnd() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

}  // namespace

ShardReport write_shard(const ShardOptions& options) {
  if (options.inputs.empty()) throw InputError("no text files to make a shard of");
  if (options.max_tokens < 0)
    throw InputError(fmt::format("max_tokens is {}, want 0 (all) or more", options.max_tokens));
  const Tokenizer tokenizer(options.tokenizer);
  if (tokenizer.bos_token_id() < 0 || tokenizer.eos_token_id() < 0)
    throw InputError(
        fmt::format("{}: has no bos or no eos token, which begin and end documents", options.tokenizer.string()));
  // The header holds the checksum of all ids, so these go to a file of their own first: memory stays bounded.
  const fs::path folder = options.output.has_parent_path() ? options.output.parent_path() : fs::path(".");
  if (!fs::is_directory(folder))
    throw InputError(
        fmt::format("{}: cannot be written, there is no folder {}", options.output.string(), folder.string()));
  const RemovedAtEnd spool{folder / fmt::format(".{}.{}.ids.tmp", options.output.filename().string(), ::getpid())};
  ShardReport report;
  write_atomically(spool.path, [&](FileWriter& out) {
    Tokenising tokenising(tokenizer, options.max_tokens, out);
    for (const auto& input : options.inputs) tokenising.add_file(input);
    report = tokenising.report();
  });
  write_packed(options.output, MappedFile(spool.path).bytes(), tokenizer.vocab_size(), tokenizer.hash(),
               report.text_bytes);
  return report;
}

}  // namespace photon
