// Fetching with a curl and an unzip that only copy: nothing here uses a network.
#include "eval/fetch.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "eval/task.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;

class Fetch : public testing::Test {
 protected:
  void SetUp() override {
    old_path = ::getenv("PATH");
    fs::create_directories(folder / "bin");
    fs::create_directories(folder / "web");
    ::setenv("PATH", (folder / "bin").c_str(), 1);
  }
  void TearDown() override { ::setenv("PATH", old_path.c_str(), 1); }

  void add_program(const std::string& name, const std::string& script) const {
    folder.write("bin/" + name, "#!/bin/sh\nPATH=" + old_path + "\n" + script);
    fs::permissions(folder / ("bin/" + name), fs::perms::owner_all);
  }
  // curl: the last argument's file name is looked up in web/; --output comes right before it.
  void add_curl() const {
    add_program("curl",
                "[ \"$1\" = --version ] && exit 0\nfor last; do :; done\n"
                "while [ $# -gt 2 ]; do shift; done\ncp '" +
                    (folder / "web").string() + "'/$(basename \"$last\") \"$1\"\n");
  }
  // unzip -q -o ARCHIVE MEMBER -d FOLDER: an archive is the text of all its members.
  void add_unzip() const {
    add_program("unzip", "[ \"$1\" = -v ] && exit 0\nmkdir -p \"$6/$(dirname \"$4\")\" && cp \"$3\" \"$6/$4\"\n");
  }
  std::string run(const std::vector<std::string>& tasks) {
    said.clear();
    try {
      fetch(tasks, folder / "data", [&](const std::string& line) { said += line + "\n"; });
    } catch (const InputError& e) {
      return e.what();
    }
    return "done";
  }

  TemporaryFolder folder;
  std::string old_path, said;
};

TEST_F(Fetch, PutsFilesWhereTheirTasksLookForThem) {
  for (const Download& d : downloads()) {
    const Task& task = find_task(d.task);
    std::set<std::string> places;
    for (const auto* files : {&task.files, &task.examples})
      for (const DataFile& file : *files) {
        places.insert(file.path);
        if (file.labels != nullptr) places.insert(file.labels);
      }
    EXPECT_TRUE(places.contains(d.path)) << d.path;
  }
  for (const Task& task : all_tasks())
    EXPECT_TRUE(std::ranges::any_of(downloads(), [&](const Download& d) {
      return std::ranges::any_of(task.files, [&](const DataFile& f) { return std::string(f.path) == d.path; });
    })) << task.name;
}

TEST_F(Fetch, GetsFilesOnceAndSaysTheirHashes) {
  add_curl();
  folder.write("web/hellaswag_val.jsonl", "one");
  folder.write("web/hellaswag_train.jsonl", "two");
  EXPECT_EQ(run({"hellaswag"}), "done");
  EXPECT_EQ(read_text(folder / "data/hellaswag_val.jsonl"), "one");
  EXPECT_EQ(read_text(folder / "data/hellaswag_train.jsonl"), "two");
  EXPECT_NE(said.find(sha256_file(folder / "web/hellaswag_val.jsonl")), std::string::npos);
  EXPECT_NE(said.find("nothing to compare it with"), std::string::npos);
  fs::remove_all(folder / "web");
  EXPECT_EQ(run({"hellaswag"}), "done");
  EXPECT_EQ(said.find("fetching"), std::string::npos);
}

TEST_F(Fetch, UnpacksArchivesAndRemovesThem) {
  add_curl();
  add_unzip();
  folder.write("web/winogrande_1.1.zip", "rows");
  EXPECT_EQ(run({"winogrande"}), "done");
  EXPECT_EQ(read_text(folder / "data/winogrande_1.1/dev.jsonl"), "rows");
  EXPECT_EQ(read_text(folder / "data/winogrande_1.1/train_xl.jsonl"), "rows");
  EXPECT_FALSE(fs::exists(folder / "data/winogrande_1.1.zip"));
}

TEST_F(Fetch, RefusesWhatIsNotThePublishedFile) {
  add_curl();
  folder.write("web/lambada_test.jsonl", "an error page");
  EXPECT_NE(run({"lambada"}).find("what was fetched has SHA-256"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "data/lambada_test.jsonl"));
  folder.write("data/lambada_test.jsonl", "mine");
  EXPECT_NE(run({"lambada"}).find("what is there has SHA-256"), std::string::npos);
  EXPECT_EQ(read_text(folder / "data/lambada_test.jsonl"), "mine");
}

TEST_F(Fetch, SaysWhatIsMissing) {
  EXPECT_NE(run({"hellaswag"}).find("needs the program 'curl'"), std::string::npos);
  add_curl();
  EXPECT_NE(run({"hellaswag"}).find("is this machine online?"), std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "data"), {}), 0);
  folder.write("web/SciQ.zip", "rows");
  EXPECT_NE(run({"sciq"}).find("needs the program 'unzip'"), std::string::npos);
  add_program("unzip", "[ \"$1\" = -v ]\n");
  EXPECT_NE(run({"sciq"}).find("unzip finds no 'SciQ dataset-2 3/test.json' in it"), std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "data"), {}), 0) << "the archive is gone, too";
}

}  // namespace
}  // namespace photon
