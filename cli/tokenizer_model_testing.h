// For the tests of commands that encode texts: a tiny model with the tests' tokenizer.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cli/command_testing.h"
#include "engine/models_testing.h"
#include "kernels/kernels.h"
#include "text/tokenizer_testing.h"
#include "weights/model_folder.h"

namespace photon::testing_support {

class TokenizerModel : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy_file(tokenizer_path(), model.path() / tokenizer_file);
    set_threads(1);
  }
  /// What `photon NAME -m MODEL ARGUMENTS…` prints.
  std::string run(void (*add)(Command), const std::string& name, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"-m", model.path().string()});
    return run_command(add, name, std::move(arguments));
  }
  static Spec spec() {
    Spec spec = tiny_specs().back().spec;
    spec.vocab_size = 400, spec.bos_token_id = 1, spec.eos_token_id = 2;
    return spec;
  }

  TestModel model{spec()};
};

}  // namespace photon::testing_support
