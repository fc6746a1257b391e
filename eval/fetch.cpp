#include "eval/fetch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/child.h"
#include "base/error.h"
#include "base/file.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

constexpr std::array published = {
    Download{"wikitext", "https://wikitext.smerity.com/wikitext-2-raw-v1.zip", "wikitext-2-raw/wiki.test.raw", true,
             "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"},
    Download{"lambada", "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
             "lambada_test.jsonl", false, "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226"},
    Download{"hellaswag", "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
             "hellaswag_val.jsonl", false},
    Download{"hellaswag", "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_train.jsonl",
             "hellaswag_train.jsonl", false},
    Download{"piqa", "https://yonatanbisk.com/piqa/data/valid.jsonl", "piqa/valid.jsonl", false,
             "93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d"},
    Download{"piqa", "https://yonatanbisk.com/piqa/data/valid-labels.lst", "piqa/valid-labels.lst", false,
             "b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb"},
    Download{"piqa", "https://yonatanbisk.com/piqa/data/train.jsonl", "piqa/train.jsonl", false},
    Download{"piqa", "https://yonatanbisk.com/piqa/data/train-labels.lst", "piqa/train-labels.lst", false},
    Download{"arc_easy", "https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip",
             "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", true},
    Download{"arc_easy", "https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip",
             "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Train.jsonl", true},
    Download{"sciq", "https://ai2-public-datasets.s3.amazonaws.com/sciq/SciQ.zip", "SciQ dataset-2 3/test.json", true},
    Download{"sciq", "https://ai2-public-datasets.s3.amazonaws.com/sciq/SciQ.zip", "SciQ dataset-2 3/train.json", true},
    Download{"winogrande", "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
             "winogrande_1.1/dev.jsonl", true},
    Download{"winogrande", "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
             "winogrande_1.1/train_xl.jsonl", true},
};

void require_program(const std::string& name, const std::string& question) {
  if (!run_program({name, question}, "."))
    throw InputError(
        fmt::format("--fetch needs the program '{}'; install it, or get the files by hand: "
                    "docs/evaluation.md says where they are",
                    name));
}

void download(const char* url, const fs::path& to) {
  const fs::path part = to.string() + ".part";
  fs::create_directories(to.parent_path());
  if (!run_program({"curl", "--fail", "--silent", "--location", "--proto", "=https", "--retry", "2", "--output",
                    fs::absolute(part).string(), url},
                   ".")) {
    fs::remove(part);
    throw InputError(
        fmt::format("{}: curl could not get it; is this machine online? The files can also be put into "
                    "the folder by hand: docs/evaluation.md says where they are",
                    url));
  }
  fs::rename(part, to);
}

}  // namespace

std::span<const Download> downloads() { return published; }

void fetch(std::span<const std::string> tasks, const fs::path& folder,
           const std::function<void(const std::string&)>& say) {
  std::set<fs::path> archives;
  const auto remove_archives = [&] {
    for (const fs::path& archive : archives) fs::remove(archive);
  };
  try {
    for (const Download& d : published) {
      if (std::ranges::find(tasks, d.task) == tasks.end()) continue;
      const fs::path file = folder / d.path;
      const bool was_there = fs::exists(file);
      if (!was_there) {
        require_program("curl", "--version");
        if (d.from_archive) {
          require_program("unzip", "-v");
          const fs::path archive = folder / fs::path(d.url).filename();
          if (!archives.contains(archive)) {
            say(fmt::format("{}: fetching {}", d.task, d.url));
            download(d.url, archive);
            archives.insert(archive);
          }
          if (!run_program(
                  {"unzip", "-q", "-o", fs::absolute(archive).string(), d.path, "-d", fs::absolute(folder).string()},
                  "."))
            throw InputError(fmt::format("{}: unzip finds no '{}' in it", d.url, d.path));
        } else {
          say(fmt::format("{}: fetching {}", d.task, d.url));
          download(d.url, file);
        }
      }
      const std::string hash = sha256_file(file);
      const bool known = d.sha256[0] != '\0';
      if (known && hash != d.sha256) {
        if (!was_there) fs::remove(file);
        throw InputError(fmt::format("{}: {} has SHA-256 {}, the published file {}", file.string(),
                                     was_there ? "what is there" : "what was fetched", hash, d.sha256));
      }
      say(fmt::format("{}: {} {}, SHA-256 {} ({})", d.task, file.string(), was_there ? "is there" : "fetched", hash,
                      known ? "as published" : "nothing to compare it with"));
    }
  } catch (...) {
    remove_archives();
    throw;
  }
  remove_archives();
}

}  // namespace photon
