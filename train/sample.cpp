// sample_text() through `photon generate`.
#include "train/sample.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/child.h"
#include "base/file.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

std::string photon_program() {
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& candidate : {here / "photon", here.parent_path() / "cli" / "photon"})
    if (!error && fs::is_regular_file(candidate)) return candidate.string();
  return "photon";
}

}  // namespace

std::optional<std::string> sample_text(const fs::path& model, const std::string& prompt, std::int64_t n_tokens,
                                       std::uint64_t seed) {
  auto text = run_program({photon_program(), "generate", "-m", model.string(), "-p", prompt, "-n",
                           std::to_string(n_tokens), "--temperature", "0.8", "--seed", std::to_string(seed)},
                          model);
  while (text && text->ends_with('\n')) text->pop_back();
  return text;
}

void write_samples_page(const fs::path& run) {
  std::string page;
  std::ifstream log(run / "log.jsonl");
  for (std::string line; std::getline(log, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("sample")) continue;
    std::string quoted;  // four columns in: Markdown shows the text as it is
    for (const char c : record["sample"].get<std::string>())
      quoted += c == '\n' ? std::string("\n    ") : std::string(1, c);
    page = fmt::format("## Step {}\n\n    {}\n\n{}", record["step"].get<std::int64_t>(), quoted, page);
  }
  write_atomically(run / "samples.md", "# Samples\n\n" + page);
}

}  // namespace photon
