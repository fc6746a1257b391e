// The command line of photon bench: what is refused before anything is measured, and as what.
#include <gtest/gtest.h>

#include <CLI/Error.hpp>
#include <iterator>
#include <sstream>
#include <string>

#include "base/error.h"
#include "cli/command_testing.h"
#include "cli/commands.h"

namespace photon {
namespace {

void run(const std::string& arguments) {
  std::istringstream words(arguments);
  testing_support::run_command(add_bench, "bench", {std::istream_iterator<std::string>(words), {}});
}

const std::string configs = PHOTON_SOURCE_DIR "/configs/";

TEST(BenchCommand, RefusesWrongUsage) {
  const std::string photon = " --config " + configs + "photon-tiny.json ";
  for (const std::string arguments :
       {"", "decode", "prefill", "speed", "ceilings --threads 0", "ceilings --repeat 0", "ceilings --config x"})
    EXPECT_THROW(run(arguments), CLI::ParseError) << arguments;
  for (const std::string flag :
       {"--dtype fp8", "--dtype bf16,fp8", "--kv-dtype int4", "--protocol greedy", "--streams 0", "--streams -1",
        "--streams 1,0", "--streams x", "--context -1", "--context 67108865", "--tokens 0", "--threads 0", "--repeat 0",
        "--phases mixed", "--seed -1", "--seed 18446744073709551616", "--budget 3"})
    EXPECT_THROW(run("decode" + photon + flag), CLI::ParseError) << flag;
  EXPECT_THROW(run("prefill" + photon + "--phases aligned"), CLI::ParseError);
  for (const std::string flag :
       {"--workload 2048", "--kv-budget 0", "--kv-budget -1", "--max-streams 0", "--samples 0"})
    EXPECT_THROW(run("tpm" + photon + flag), CLI::ParseError) << flag;
}

TEST(BenchCommand, RefusesWhatCannotBeMeasured) {
  EXPECT_THROW(run("decode --config nothing.json"), InputError);
  EXPECT_THROW(run("decode -m " + configs), Error);
  EXPECT_THROW(run("decode --config " + configs + "vanilla-8m.json --protocol recgen"), InputError);
  EXPECT_THROW(run("decode --config " + configs + "photon-8m.json --tokens 3"), InputError);
  EXPECT_THROW(run("decode --config " + configs + "photon-8m.json --context 60000000 --streams 60000"), InputError);
  EXPECT_THROW(run("tpm --config " + configs + "photon-8m.json --kv-budget 0.00001"), InputError);
}

}  // namespace
}  // namespace photon
