// Any bytes as a config.json: refused with a SpecError, or a model whose text round-trips and whose costs are finite.
#include <cstdlib>

#include "spec/accounting.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace photon;
  try {
    const Spec spec = parse_spec({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (parse_spec(to_json(spec), "fuzz") != spec || count_parameters(spec).total < 1 ||
        kv_bytes_allocated(spec, Protocol::hiergen, max_context, DType::f32) < 1 ||
        !(weights_read_per_token(spec, Protocol::recgen) > 0) || !problems(matching_vanilla(spec)).empty())
      std::abort();
  } catch (const SpecError&) {  // the expected answer to most inputs
  }
  return 0;
}
