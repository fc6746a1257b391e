// The errors that a user can cause: each message says what, where, got, wanted and the next step.
#pragma once

#include <stdexcept>
#include <string>

namespace photon {

/// Base of everything that main() reports with one line and exit code 1.  Our own mistakes are asserts instead.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct SpecError : Error {  ///< a config.json or recipe that describes no model; lists all problems at once
  using Error::Error;
};
struct WeightsError : Error {  ///< a weights file that is damaged or belongs to another config
  using Error::Error;
};
struct InputError : Error {  ///< a flag, prompt, file or request that cannot be honoured
  using Error::Error;
};
/// A value out of range.  A library names its field ("temperature", "is -1, must be …"); a program that knows the value
/// by another name, a flag say, says that instead.
struct FieldError : InputError {
  FieldError(const std::string& field_, const std::string& problem_)
      : InputError(field_ + " " + problem_), field(field_), problem(problem_) {}
  std::string field, problem;
};

}  // namespace photon
