// usable_cpus(): affinity mask and cgroup quota (v2 and v1); settings that libraries read before main().
#include "base/threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace photon {
namespace {

// CPUs that a quota in microseconds per period allows, rounded down; 0 where there is no quota.
std::int64_t quota_cpus() {
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    std::string quota;
    std::int64_t period = 0;
    if (v2 >> quota >> period && quota != "max" && period > 0)
      return std::max<std::int64_t>(1, std::stoll(quota) / period);
    return 0;
  }
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  std::int64_t quota = 0, period = 0;
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0)
    return std::max<std::int64_t>(1, quota / period);
  return 0;
}

}  // namespace

std::int64_t usable_cpus() {
  auto cpus = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = CPU_COUNT(&mask);
  if (const std::int64_t quota = quota_cpus(); quota > 0) cpus = std::min(cpus, quota);
  return std::max<std::int64_t>(1, cpus);
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != line.npos) return line.substr(colon + 2);
  return "unknown";
}

Environment openmp_settings() {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return {};
  return {{"GOMP_SPINCOUNT", "1000"}};
}

void start_with(const Environment& settings, char** argv) {
  if (settings.empty()) return;
  for (const auto& [name, value] : settings) ::setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
  ::execv("/proc/self/exe", argv);  // returns only where that file is missing: then all stays as it was
}

}  // namespace photon
