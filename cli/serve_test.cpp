// `photon serve` as a process: its port, its signals and its exit codes.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>

#include "serve/http_testing.h"
#include "text/tokenizer_testing.h"

extern char** environ;

namespace photon {
namespace {

using namespace testing_support;

const std::string stories = PHOTON_SOURCE_DIR "/models/photon-stories";

class Process {
 public:
  explicit Process(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {PHOTON_PROGRAM, "serve"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) return;
    const std::string log = (folder_ / "log").string();
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT, 0600);
    if (::posix_spawn(&pid_, PHOTON_PROGRAM, &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    std::string said;  // one line: where it listens
    for (char c = 0; ::read(out[0], &c, 1) == 1 && c != '\n';) said += c;
    ::close(out[0]);
    if (const auto colon = said.rfind(':'); said.starts_with("listening on http://") && colon != std::string::npos)
      port_ = static_cast<std::uint16_t>(std::stoi(said.substr(colon + 1)));
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    exit_code();
  }

  std::uint16_t port() const { return port_; }  // 0: it does not listen
  void signal(int number) { ::kill(pid_, number); }
  int exit_code() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string log() const {
    std::ostringstream text;
    text << std::ifstream(folder_ / "log").rdbuf();
    return text.str();
  }
  bool health(int status) {
    return eventually([&] { return Client(port_).ask(get("/health")).status == status; });
  }
  bool ready() { return health(200); }
  // Running or in the queue, by /metrics.
  bool has_requests(int n) {
    return eventually([&] {
      std::istringstream metrics(Client(port_).ask(get("/metrics")).body);
      double sum = 0;
      for (std::string line; std::getline(metrics, line);)
        if (line.starts_with("photon:num_requests_")) sum += std::stod(line.substr(line.rfind(' ')));
      return sum == n;
    });
  }
  Client streaming(int n_tokens) {
    Client client(port_);
    client.send(post("/v1/completions", fmt::format(R"({{"prompt": [1, 2, 3], "stream": true, "ignore_eos": true,)"
                                                    R"( "max_tokens": {}}})",
                                                    n_tokens)));
    return client;
  }

 private:
  TemporaryFolder folder_;
  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

std::vector<std::string> small(std::vector<std::string> more = {}) {
  std::vector<std::string> arguments{"-m", stories, "--port", "0", "--memory", "64MiB", "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// The stream ends in good order, and says why.
void expect_cut_off(Client& client) {
  const HttpAnswer answer = client.read_answer();
  EXPECT_TRUE(answer.whole);
  EXPECT_NE(answer.body.find("unavailable_error"), std::string::npos);
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
}

TEST(Serve, AnswersUntilItIsToldToStop) {
  for (const int number : {SIGTERM, SIGINT}) {
    Process process(small());
    ASSERT_TRUE(process.ready());
    Client client(process.port());
    const HttpAnswer answer = client.ask(post("/v1/completions", R"({"prompt": [1, 2, 3], "max_tokens": 4})"));
    EXPECT_EQ(answer.status, 200) << answer.body;
    process.signal(number);
    EXPECT_EQ(process.exit_code(), 0);
    EXPECT_NE(process.log().find("POST /v1/completions 200"), std::string::npos);
    EXPECT_NE(process.log().find("stopped"), std::string::npos);
  }
}

TEST(Serve, RunningStreamsEndBeforeItDoes) {
  Process process(small());
  ASSERT_TRUE(process.ready());
  Client client = process.streaming(1'000);
  ASSERT_TRUE(client.sees("data: "));
  process.signal(SIGTERM);
  EXPECT_EQ(process.exit_code(), 0);
  const HttpAnswer answer = client.read_answer();
  EXPECT_TRUE(answer.whole);
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
}

TEST(Serve, ASecondSignalWaitsForNobody) {
  Process process(small());
  ASSERT_TRUE(process.ready());
  Client client = process.streaming(300'000);
  ASSERT_TRUE(client.sees("data: "));
  process.signal(SIGTERM);
  ASSERT_TRUE(process.health(503));  // it drains
  process.signal(SIGTERM);
  EXPECT_EQ(process.exit_code(), 0);
  expect_cut_off(client);
}

TEST(Serve, DrainingEndsAtItsDeadline) {
  Process process(small({"--drain-timeout", "0.1"}));
  ASSERT_TRUE(process.ready());
  Client client = process.streaming(300'000);
  ASSERT_TRUE(client.sees("data: "));
  Client waiting(process.port());
  waiting.send(post("/v1/completions", R"({"prompt": [1], "ignore_eos": true, "max_tokens": 300000})"));
  ASSERT_TRUE(process.has_requests(2));
  process.signal(SIGTERM);
  EXPECT_EQ(process.exit_code(), 0);
  expect_cut_off(client);
  EXPECT_EQ(waiting.read_answer().status, 503);
}

TEST(Serve, APortThatIsTakenIsFoundBeforeTheModelIsRead) {
  Process first(small());
  ASSERT_NE(first.port(), 0);
  Process second({"-m", "/no/such/folder", "--port", std::to_string(first.port())});
  EXPECT_EQ(second.port(), 0);
  EXPECT_EQ(second.exit_code(), 1);
  EXPECT_NE(second.log().find("cannot listen on 127.0.0.1"), std::string::npos) << second.log();
}

TEST(Serve, AModelThatCannotBeLoadedIsOneError) {
  Process process({"-m", "/no/such/folder", "--port", "0"});
  EXPECT_NE(process.port(), 0);
  EXPECT_EQ(process.exit_code(), 1);
  const std::string log = process.log();
  EXPECT_EQ(std::ranges::count(log, '\n'), 1) << log;
  EXPECT_NE(log.find("/no/such/folder"), std::string::npos) << log;
}

TEST(Serve, KeysComeFromFlagsFileAndEnvironment) {
  const TemporaryFolder folder;
  const std::string file = folder.write("keys", "in-file\r\n\nalso-in-file\n").string();
  ::setenv("PHOTON_API_KEY", "from-environment", 1);
  Process process(small({"--api-key", "one", "--api-key", "two", "--api-key-file", file}));
  ::unsetenv("PHOTON_API_KEY");
  ASSERT_TRUE(process.ready());
  Client client(process.port());
  EXPECT_EQ(client.ask(get("/v1/models")).status, 401);
  for (const char* key : {"one", "two", "in-file", "also-in-file", "from-environment"})
    EXPECT_EQ(client.ask(get("/v1/models", fmt::format("x-api-key: {}\r\n", key))).status, 200) << key;
  EXPECT_EQ(process.log().find("in-file"), std::string::npos);
}

TEST(Serve, MemoryThatHoldsNothingIsAnError) {
  Process process({"-m", stories, "--port", "0", "--memory", "1KiB", "--threads", "1"});
  EXPECT_EQ(process.exit_code(), 1);
  EXPECT_NE(process.log().find("--memory: 1024 bytes"), std::string::npos) << process.log();
}

TEST(Serve, WrongUsageSaysSo) {
  const TemporaryFolder folder;
  const std::string empty = folder.write("keys", "\n").string();
  for (const auto& [arguments, code] :
       std::vector<std::pair<std::vector<std::string>, int>>{{{"--memory", "4 apples"}, 2},
                                                             {{"--memory", "-1"}, 2},
                                                             {{"--port", "65536"}, 2},
                                                             {{"--max-connections", "0"}, 2},
                                                             {{"--drain-timeout", "-1"}, 2},
                                                             {{"--no-such-flag"}, 2},
                                                             {{"--api-key", ""}, 1},
                                                             {{"--api-key", "a b"}, 1},
                                                             {{"--api-key-file", empty}, 1},
                                                             {{"--api-key-file", "/no/such/file"}, 1},
                                                             {{"--host", "no.such.host.invalid"}, 1}}) {
    Process process(small(arguments));
    EXPECT_EQ(process.port(), 0) << arguments[0];
    EXPECT_EQ(process.exit_code(), code) << arguments[0];
  }
}

}  // namespace
}  // namespace photon
