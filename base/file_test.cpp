// Properties of base/file.h: hashes, atomic replacement, refusal of what is no regular file.
#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "base/error.h"
#include "base/folder_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder.path()), {}));
  }
  testing_support::TemporaryFolder folder;
};

TEST_F(Files, Sha256MatchesThePublishedVector) {
  write_atomically(folder / "abc", "abc");
  EXPECT_EQ(sha256_file(folder / "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(Files, AFailedWriteKeepsTheOldFileAndLeavesNothingBehind) {
  write_atomically(folder / "f", "old");
  EXPECT_THROW(write_atomically(folder / "f",
                                [](FileWriter& out) {
                                  out.write("half");
                                  throw Error("stopped");
                                }),
               Error);
  EXPECT_EQ(read_text(folder / "f"), "old");
  EXPECT_EQ(entries(), 1u);
  write_atomically(folder / "f", "new");
  EXPECT_EQ(read_text(folder / "f"), "new");
}

TEST_F(Files, OnlyRegularFilesAreMapped) {
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  fs::create_symlink(folder / "loop", folder / "loop");
  for (const fs::path& path :
       {folder.path(), folder / "fifo", folder / "loop", folder / "missing", fs::path("/dev/zero")})
    EXPECT_THROW(MappedFile{path}, InputError) << path;
}

TEST_F(Files, AnEmptyFileMapsToAnEmptySpan) {
  write_atomically(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

}  // namespace
}  // namespace photon
