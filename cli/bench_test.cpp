// The command line of photon bench: what is refused before anything is measured, and as what.
#include <gtest/gtest.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/folder_testing.h"
#include "cli/command_testing.h"
#include "cli/commands.h"
#include "engine/models_testing.h"

namespace photon {
namespace {

std::string run(const std::string& arguments) {
  std::istringstream words(arguments);
  return testing_support::run_command(add_bench, "bench", {std::istream_iterator<std::string>(words), {}});
}

const std::string configs = PHOTON_SOURCE_DIR "/configs/";

TEST(BenchCommand, RefusesWrongUsage) {
  const std::string photon = " --config " + configs + "photon-tiny.json ";
  for (const std::string arguments :
       {"", "decode", "prefill", "speed", "ceilings --threads 0", "ceilings --repeat 0", "ceilings --config x"})
    EXPECT_THROW(run(arguments), UsageError) << arguments;
  for (const std::string flag :
       {"--dtype fp8", "--dtype bf16,fp8", "--kv-dtype int4", "--protocol greedy", "--streams 0", "--streams -1",
        "--streams 1,0", "--streams x", "--context -1", "--context 67108865", "--tokens 0", "--threads 0", "--repeat 0",
        "--phases mixed", "--seed -1", "--seed 18446744073709551616", "--budget 3"})
    EXPECT_THROW(run("decode" + photon + flag), UsageError) << flag;
  EXPECT_THROW(run("prefill" + photon + "--phases aligned"), UsageError);
  for (const std::string flag :
       {"--workload 2048", "--kv-budget 0", "--kv-budget -1", "--max-streams 0", "--samples 0"})
    EXPECT_THROW(run("tpm" + photon + flag), UsageError) << flag;
  for (const std::string flag :
       {"--size 7b", "--size 600m,900m", "--workload 1+1", "--config x.json", "--kv-budget 0", "--samples 0"})
    EXPECT_THROW(run("paper " + flag), UsageError) << flag;
}

TEST(BenchCommand, RefusesWhatCannotBeMeasured) {
  EXPECT_THROW(run("decode --config nothing.json"), InputError);
  EXPECT_THROW(run("decode -m " + configs), Error);
  EXPECT_THROW(run("decode --config " + configs + "vanilla-8m.json --protocol recgen"), InputError);
  EXPECT_THROW(run("decode --config " + configs + "photon-8m.json --tokens 3"), InputError);
  EXPECT_THROW(run("decode --config " + configs + "photon-8m.json --context 60000000 --streams 60000"), InputError);
  EXPECT_THROW(run("tpm --config " + configs + "photon-8m.json --kv-budget 0.00001"), InputError);
}

// The paper's tables of models that are called like its own, and are tiny.
class BenchPaper : public testing::Test {
 protected:
  BenchPaper() {
    for (const auto& [name, spec] : {std::pair{"vanilla-600m", "vanilla"},
                                     {"block-600m", "block_exact"},
                                     {"photon-600m", "paper_exact"},
                                     {"photon-600m-c2x2", "paper_exact"}})
      folder.write(std::string(name) + ".json", to_json(tiny_spec(spec)));
  }
  std::string command(const std::string& more) const {
    return "paper --configs " + folder.path().string() + " --repeat 1 --samples 1 --max-streams 2 --threads 1 " + more;
  }
  std::string error_of(const std::string& more) const {
    try {
      run(command(more));
    } catch (const InputError& e) {
      return e.what();
    }
    return "no error";
  }

  testing_support::TemporaryFolder folder;
  const std::filesystem::path out = folder / "rounds.json";
};

TEST_F(BenchPaper, PutsItsFiguresBesideOursAndKeepsWhatItMeasured) {
  const auto rows = nlohmann::json::parse(run(command("--json --out " + out.string())));
  ASSERT_EQ(rows.size(), 12u);
  for (const auto& row : rows) {
    EXPECT_EQ(row["paper"].is_null(), row["model"] == "photon-600m-c2x2" && row["protocol"] == "recgen");
    EXPECT_FALSE(row["tpm_alone_vs_vanilla"].is_null());
  }
  const std::string kept = read_text(out);
  const std::string table = run(command("--out " + out.string()));
  EXPECT_EQ(read_text(out), kept) << "nothing was measured again";
  for (const char* text : {"PF 2048+128", "DE 128+2048", "photon-600m-c2x2", "13642", "0.275 GiB", "H200"})
    EXPECT_NE(table.find(text), std::string::npos) << text;
}

TEST_F(BenchPaper, RefusesAFileOfSomethingElseAndConfigsThatAreNotThere) {
  const auto other = folder.write("other.json", "{\"a\": 1}");
  EXPECT_TRUE(error_of("--out " + other.string()).starts_with(other.string() + ": is no file of rounds"));
  EXPECT_EQ(read_text(other), "{\"a\": 1}");
  EXPECT_NE(error_of("--out " + folder.path().string()), "no error");
  EXPECT_NE(error_of("--size 900m").find("vanilla-900m.json: not here"), std::string::npos);
}

}  // namespace
}  // namespace photon
