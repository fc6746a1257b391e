cmake_minimum_required(VERSION 3.25)
# Writes OUTPUT, the definitions of photon::version() and photon::commit(), if VERSION or the commit of SOURCE is another
# than the one that it names.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --tags
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT "#include \"base/version.h\"

const char* photon::version() { return \"@VERSION@\"; }
const char* photon::commit() { return \"@commit@\"; }
")
