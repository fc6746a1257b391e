// Command lines: what the programs use of CLI11, whose headers take longer to compile than any command, compiled once.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace photon {

/// Arguments that are unknown, missing or wrong; programs answer with exit code 2.
struct UsageError : Error {
  using Error::Error;
};

/// An option or a positional argument of a command; a copy is the same argument.
class Argument {
 public:
  explicit Argument(CLI::Option* option) : option_(option) {}

  Argument& required(bool is_required = true);
  template <std::integral T, std::integral U>
  Argument& range(T least, U most) {
    return range_of(static_cast<std::int64_t>(least), static_cast<std::int64_t>(most));
  }
  Argument& range(double least, double most);
  Argument& one_of(const std::vector<std::string>& words);
  /// @param problem  says what is wrong with a word, or returns ""
  Argument& check(std::string (*problem)(const std::string& word));
  /// An integer that may have a unit: 512MiB, 4GiB, 1kB.
  Argument& bytes(std::uint64_t least, std::uint64_t most);
  Argument& separated_by_commas();
  /// Of a list: every occurrence adds one word.
  Argument& repeatable();
  Argument& excludes(const Argument& other);
  /// What help shows as the default in place of the variable's value.
  Argument& shown_default(const std::string& text);
  /// Help shows none: the description tells what happens without it.
  Argument& no_default() { return shown_default(""); }

  bool given() const;
  std::string name() const;

 private:
  Argument& range_of(std::int64_t least, std::int64_t most);

  CLI::Option* option_;
};

/// A command, one of its subcommands, or a group of its options; a copy is the same command.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command subcommand(const std::string& name, const std::string& description);
  void needs_subcommand();
  /// Options of which at least `least` and at most `most` must be given; 0: any number.
  Command group(const std::string& name, const std::string& description, std::size_t least = 0, std::size_t most = 0);

  /// An option ("-m,--model") or a positional argument ("folder") that fills `value`, which must outlive parsing and
  /// whose value now is the default that help shows.  T: std::string, std::filesystem::path, int, std::uint16_t,
  /// std::int64_t, std::uint64_t, double or optional double, or a vector of std::string, std::filesystem::path or
  /// std::int64_t.
  template <class T>
  Argument option(const std::string& names, T& value, const std::string& description);
  /// An option whose words something else reads, which may throw InputError.
  Argument parsed(const std::string& names, const std::function<void(const std::string& word)>& read,
                  const std::string& description);
  Argument parsed_list(const std::string& names, const std::function<void(const std::vector<std::string>& words)>& read,
                       const std::string& description);
  void flag(const std::string& names, bool& value, const std::string& description);
  void footer(const std::string& text);
  /// What the command does, once all arguments are read.  It may throw UsageError, too.
  void runs(const std::function<void()>& body);
  std::string name() const;

 private:
  CLI::App* app_;
};

/// A program's command line.  Of an option that is given twice the last counts, so that scripts can be overridden.
class CommandLine {
 public:
  /// @param version  what --version prints
  CommandLine(const std::string& description, const std::string& version);
  ~CommandLine();

  Command command() { return Command(app_.get()); }
  /// Reads the arguments and runs what they say, or prints help, the version, or what is wrong with them.
  /// @returns 0, or 2 for bad arguments.  @throws whatever the command that ran throws.
  int run(int argc, char** argv);
  /// The same without printing.  @throws UsageError.
  void run(std::vector<std::string> arguments);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace photon
