#include "base/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <optional>

namespace photon {

Argument& Argument::required(bool is_required) {
  option_->required(is_required);
  return *this;
}

Argument& Argument::range_of(std::int64_t least, std::int64_t most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Argument& Argument::range(double least, double most) {
  option_->check(CLI::Range(least, most));
  return *this;
}

Argument& Argument::one_of(const std::vector<std::string>& words) {
  option_->check(CLI::IsMember(words));
  return *this;
}

Argument& Argument::check(std::string (*problem)(const std::string&)) {
  option_->check(problem);
  return *this;
}

Argument& Argument::bytes(std::uint64_t least, std::uint64_t most) {
  option_->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))->check(CLI::Range(least, most));
  return *this;
}

Argument& Argument::separated_by_commas() {
  option_->delimiter(',')->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}

Argument& Argument::repeatable() {
  option_->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  return *this;
}

Argument& Argument::excludes(const Argument& other) {
  option_->excludes(other.option_);
  return *this;
}

Argument& Argument::shown_default(const std::string& text) {
  option_->default_str(text);
  return *this;
}

bool Argument::given() const { return option_->count() > 0; }

std::string Argument::name() const { return option_->get_name(); }

Command Command::subcommand(const std::string& name, const std::string& description) {
  return Command(app_->add_subcommand(name, description));
}

void Command::needs_subcommand() { app_->require_subcommand(1); }

Command Command::group(const std::string& name, const std::string& description, std::size_t least, std::size_t most) {
  CLI::App* group = app_->add_option_group(name, description);
  group->require_option(least, most);
  return Command(group);
}

template <class T>
Argument Command::option(const std::string& names, T& value, const std::string& description) {
  CLI::Option* option = app_->add_option(names, value, description);
  const bool has_value = [&] {
    if constexpr (requires { value.empty(); })
      return !value.empty();
    else if constexpr (requires { value.has_value(); })
      return value.has_value();
    else
      return true;
  }();
  if (has_value) option->capture_default_str();
  return Argument(option);
}
template Argument Command::option(const std::string&, std::string&, const std::string&);
template Argument Command::option(const std::string&, std::filesystem::path&, const std::string&);
template Argument Command::option(const std::string&, int&, const std::string&);
template Argument Command::option(const std::string&, std::uint16_t&, const std::string&);
template Argument Command::option(const std::string&, std::int64_t&, const std::string&);
template Argument Command::option(const std::string&, std::uint64_t&, const std::string&);
template Argument Command::option(const std::string&, double&, const std::string&);
template Argument Command::option(const std::string&, std::optional<double>&, const std::string&);
template Argument Command::option(const std::string&, std::vector<std::string>&, const std::string&);
template Argument Command::option(const std::string&, std::vector<std::filesystem::path>&, const std::string&);
template Argument Command::option(const std::string&, std::vector<std::int64_t>&, const std::string&);

namespace {

// What `read` refuses is reported with the option's name.
template <class Words>
std::function<void(const Words&)> refusing(const std::string& names, const std::function<void(const Words&)>& read) {
  return [names, read](const Words& words) {
    try {
      read(words);
    } catch (const InputError& e) {
      throw CLI::ValidationError(names, e.what());
    }
  };
}

}  // namespace

Argument Command::parsed(const std::string& names, const std::function<void(const std::string&)>& read,
                         const std::string& description) {
  return Argument(app_->add_option_function<std::string>(names, refusing(names, read), description));
}

Argument Command::parsed_list(const std::string& names,
                              const std::function<void(const std::vector<std::string>&)>& read,
                              const std::string& description) {
  return Argument(app_->add_option_function<std::vector<std::string>>(names, refusing(names, read), description))
      .separated_by_commas();
}

void Command::flag(const std::string& names, bool& value, const std::string& description) {
  app_->add_flag(names, value, description);
}

void Command::footer(const std::string& text) { app_->footer(text); }

void Command::runs(const std::function<void()>& body) {
  app_->callback([body] {
    try {
      body();
    } catch (const UsageError& e) {
      throw CLI::RequiredError(e.what(), CLI::ExitCodes::RequiredError);
    }
  });
}

std::string Command::name() const { return app_->get_name(); }

CommandLine::CommandLine(const std::string& description, const std::string& version)
    : app_(std::make_unique<CLI::App>(description)) {
  app_->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app_->set_version_flag("--version", version);
}

CommandLine::~CommandLine() = default;

int CommandLine::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app_->exit(e) == 0 ? 0 : 2;
  }
  return 0;
}

void CommandLine::run(std::vector<std::string> arguments) {
  std::ranges::reverse(arguments);  // as CLI11 wants them
  try {
    app_->parse(arguments);
  } catch (const CLI::ParseError& e) {
    throw UsageError(e.what());
  }
}

}  // namespace photon
