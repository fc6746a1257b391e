// Properties of LineLog: whole lines survive, cut ones do not, and nothing changes when the reader refuses.
#include "base/line_log.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/folder_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

class LineLogIn : public testing::Test {
 protected:
  static bool all(std::string_view, std::int64_t) { return true; }
  testing_support::TemporaryFolder folder;
  fs::path path = folder / "log.jsonl";
};

TEST_F(LineLogIn, OneWriterAtATime) {
  {
    LineLog log(path, all);
    log.append("a");
    EXPECT_THROW(LineLog(path, all), InputError);
    EXPECT_THROW(LineLog(path, [](std::string_view, std::int64_t) { return false; }), InputError);
    log.append("b");
  }
  LineLog next(path, [](std::string_view line, std::int64_t) { return line != "a"; });  // writes the file anew
  EXPECT_THROW(LineLog(path, all), InputError);
  next.append("c");
  EXPECT_EQ(read_text(path), "b\nc\n");
}

TEST_F(LineLogIn, LinesAreInTheFileWhenAppendReturns) {
  LineLog log(path, all);
  EXPECT_TRUE(log.empty());
  log.append("a");
  EXPECT_EQ(read_text(path), "a\n");
  log.append("");
  log.append("b c");
  EXPECT_EQ(read_text(path), "a\n\nb c\n");
  EXPECT_FALSE(log.empty());
  log.sync();
}

TEST_F(LineLogIn, GoesOnBehindTheLinesThatAreKeptWithoutTheOneThatWasCutOff) {
  write_atomically(path, "one\ntwo\nthree\nfou");
  std::vector<std::string> seen;
  LineLog log(path, [&](std::string_view line, std::int64_t n) {
    seen.push_back(std::to_string(n) + std::string(line));
    return line != "two";
  });
  EXPECT_EQ(seen, (std::vector<std::string>{"1one", "2two", "3three"}));
  log.append("five");
  EXPECT_EQ(read_text(path), "one\nthree\nfive\n");
}

TEST_F(LineLogIn, ARefusedFileStaysAsItIs) {
  write_atomically(path, "one\ntw");
  EXPECT_THROW(LineLog(path, [](std::string_view, std::int64_t) -> bool { throw InputError("no"); }), InputError);
  EXPECT_EQ(read_text(path), "one\ntw");
  EXPECT_THROW(LineLog(folder / "absent" / "log", all), InputError);
}

}  // namespace
}  // namespace photon
