# Targets of one shape: photon_library(), photon_program(), photon_isa(); language level, warnings and sanitizers for all.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
find_program(PHOTON_CCACHE ccache)
if(PHOTON_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What it asks for to keep what precompiled headers are part of.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${PHOTON_CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-fpch-preprocess)
  endif()
endif()

# Optimising is two thirds of the time of a build.  Only what computes gets all of it (photon_hot), tests get none; debug
# builds, which sanitizers make slow enough, give some to what computes.
set(PHOTON_COLD $<$<CONFIG:Release>:-O1>)
set(PHOTON_HOT $<IF:$<CONFIG:Release>,-O3,-O1>)
set(PHOTON_TEST $<$<CONFIG:Release>:-O0>)

find_program(PHOTON_MOLD mold)  # links in a tenth of the time; GCC before 12.1 does not know it
if(PHOTON_MOLD)
  include(CheckLinkerFlag)
  check_linker_flag(CXX -fuse-ld=mold PHOTON_MOLD_LINKS)
  if(PHOTON_MOLD_LINKS)
    add_link_options(-fuse-ld=mold)
  endif()
endif()

set(PHOTON_WARNINGS -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  # Its -Wconversion has more in it than GCC's: here an int64_t may index a container of the standard library.
  list(APPEND PHOTON_WARNINGS -Wno-sign-conversion)
endif()

# photon_options(target [TEST]).  Under sanitizers a test is compiled without UBSan, whose checks of a test's own code are a
# third of its compile time.
function(photon_options target)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE ${PHOTON_WARNINGS})
  if(ARGN STREQUAL TEST)
    target_compile_options(${target} PRIVATE ${PHOTON_TEST})
  else()
    target_compile_options(${target} PRIVATE ${PHOTON_COLD})
  endif()
  if(PHOTON_SANITIZE)
    # GCC's flow warnings misfire on instrumented code; the other builds keep them errors.
    target_compile_options(${target} PRIVATE -Wno-error -fno-omit-frame-pointer)
    # Without four checks: null, misaligned and out-of-object pointers end in ASan's report or the CPU's trap all the same, at
    # a quarter of the compile time; vptr opens pipes, which tests forbid.
    set(unchecked null,alignment,object-size,vptr)
    if(ARGN STREQUAL TEST)
      set(unchecked undefined)
    endif()
    target_compile_options(${target} PRIVATE -fsanitize=${PHOTON_SANITIZE} -fno-sanitize-recover=all
      -fno-sanitize=${unchecked})
    target_link_options(${target} PUBLIC -fsanitize=${PHOTON_SANITIZE})
  endif()
endfunction()

# photon_library(kernels SOURCES a.cpp b.cpp DEPENDS base): target photon::kernels with its tests (x_test.cpp) and
# benchmarks (x_bench.cpp) found beside the sources.
#   HEADERS      those of other projects that take longer to read than the sources to compile; they are read once, and
#                every source still includes what it uses
#   TOGETHER     suites of tests that run in one process each, where starting it takes longer than a test
function(photon_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LINKS;HEADERS;TEST_DEPENDS;TOGETHER" ${ARGN})
  add_library(photon_${name} STATIC ${arg_SOURCES})
  add_library(photon::${name} ALIAS photon_${name})
  photon_options(photon_${name})
  foreach(dependency ${arg_DEPENDS})
    target_link_libraries(photon_${name} PUBLIC photon::${dependency})
  endforeach()
  target_link_libraries(photon_${name} PUBLIC ${arg_LINKS})
  if(arg_HEADERS)
    target_precompile_headers(photon_${name} PRIVATE ${arg_HEADERS})
  endif()
  photon_tests(${name} "${arg_TOGETHER}" ${arg_TEST_DEPENDS})
endfunction()

# What most tests include, read once for all test programs: these have the same options.
function(photon_test_headers)
  file(CONFIGURE OUTPUT test_headers.cpp CONTENT "")
  add_library(photon_test_headers OBJECT ${CMAKE_CURRENT_BINARY_DIR}/test_headers.cpp)
  photon_options(photon_test_headers TEST)
  target_link_libraries(photon_test_headers PUBLIC GTest::gtest fmt::fmt nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX)
  target_precompile_headers(photon_test_headers PRIVATE <gtest/gtest.h> <fmt/format.h> <nlohmann/json.hpp>)
endfunction()

# The tests of folder x, every y_test.cpp in it, are one program x_test.  Benchmarks and fuzz targets are programs each.
function(photon_tests library together)
  if(PHOTON_TESTS)
    file(GLOB tests CONFIGURE_DEPENDS *_test.cpp)
    if(tests)
      add_executable(${library}_test ${tests})
      photon_options(${library}_test TEST)
      target_compile_definitions(${library}_test PRIVATE PHOTON_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
      target_link_libraries(${library}_test PRIVATE photon::${library} ${ARGN} GTest::gtest_main photon_test_headers)
      target_precompile_headers(${library}_test REUSE_FROM photon_test_headers)
      set(environment OMP_WAIT_POLICY=passive)  # ctest runs several at once: waiting threads sleep
      if(PHOTON_SANITIZE)  # whose processes start slowly: a few for all tests
        foreach(shard RANGE 3)
          add_test(NAME ${library}_test_${shard} COMMAND ${library}_test --gtest_brief=1)
          set_tests_properties(${library}_test_${shard} PROPERTIES TIMEOUT 1200
            ENVIRONMENT "${environment};GTEST_TOTAL_SHARDS=4;GTEST_SHARD_INDEX=${shard}")
        endforeach()
      else()
        set(properties TIMEOUT 600 ENVIRONMENT ${environment})
        list(TRANSFORM together APPEND ".*" OUTPUT_VARIABLE others)
        list(JOIN others ":" others)  # of gtest: all but these
        gtest_discover_tests(${library}_test DISCOVERY_TIMEOUT 120 TEST_FILTER "-${others}" PROPERTIES ${properties})
        foreach(suite ${together})
          add_test(NAME ${library}:${suite} COMMAND ${library}_test --gtest_brief=1 --gtest_filter=${suite}.*)
          set_tests_properties(${library}:${suite} PROPERTIES ${properties})
        endforeach()
      endif()
    endif()
  endif()
  if(PHOTON_BENCHMARKS)
    file(GLOB benchmarks CONFIGURE_DEPENDS *_bench.cpp)
    foreach(source ${benchmarks})
      get_filename_component(bench ${source} NAME_WE)
      add_executable(${library}_${bench} ${source})
      photon_options(${library}_${bench})
      target_link_libraries(${library}_${bench} PRIVATE photon::${library} benchmark::benchmark_main)
    endforeach()
  endif()
  if(PHOTON_FUZZ)
    file(GLOB fuzzers CONFIGURE_DEPENDS *_fuzz.cpp)
    foreach(source ${fuzzers})
      get_filename_component(fuzz ${source} NAME_WE)
      add_executable(${library}_${fuzz} ${source})
      photon_options(${library}_${fuzz})
      target_compile_options(${library}_${fuzz} PRIVATE -fsanitize=fuzzer)
      target_link_libraries(${library}_${fuzz} PRIVATE photon::${library} -fsanitize=fuzzer)
    endforeach()
  endif()
endfunction()

# For libraries that compute, or those of their sources that do.
function(photon_hot library)
  if(ARGN)
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${PHOTON_HOT}")
  else()
    target_compile_options(photon_${library} PRIVATE ${PHOTON_HOT})
  endif()
endfunction()

# The only place where -m flags appear: the files of folder `isa` are one instruction set's, chosen at run time.
function(photon_isa library isa)
  file(GLOB sources CONFIGURE_DEPENDS ${isa}/*.cpp)
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "${PHOTON_HOT};${ARGN}")
  target_sources(photon_${library} PRIVATE ${sources})
  if(PHOTON_TESTS)
    add_test(NAME ${library}_isa_symbols_${isa} COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DFOLDER=${isa}
      "-DOBJECTS=$<TARGET_OBJECTS:photon_${library}>" -P ${PROJECT_SOURCE_DIR}/cmake/isa_symbols.cmake)
  endif()
endfunction()

function(photon_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  photon_options(${name})
  foreach(dependency ${arg_DEPENDS})
    target_link_libraries(${name} PRIVATE photon::${dependency})
  endforeach()
  target_link_libraries(${name} PRIVATE ${arg_LINKS})
  install(TARGETS ${name})
endfunction()
