cmake_minimum_required(VERSION 3.25)
# Writes OUTPUT, the definition of photon::web_assets(), from ASSETS: a list of "URL path|content type|file".
set(arrays "")
set(table "")
set(n 0)
foreach(asset IN LISTS ASSETS)
  string(REGEX MATCH "^([^|]*)[|]([^|]*)[|](.*)$" matched "${asset}")
  set(path "${CMAKE_MATCH_1}")
  set(type "${CMAKE_MATCH_2}")
  set(file "${CMAKE_MATCH_3}")
  if(type MATCHES "^text/")
    string(APPEND type "; charset=utf-8")
  endif()
  file(READ "${file}" bytes HEX)
  file(SHA256 "${file}" digest)
  string(SUBSTRING "${digest}" 0 24 digest)
  string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${bytes}")
  string(APPEND arrays "const char asset_${n}[] = {${bytes}};\n")
  string(APPEND table "    {\"${path}\", \"${type}\", {asset_${n}, sizeof asset_${n}}, \"\\\"${digest}\\\"\"},\n")
  math(EXPR n "${n} + 1")
endforeach()
file(WRITE "${OUTPUT}" "// Generated from serve/web/.
#include \"serve/web_assets.h\"

namespace {
${arrays}
const photon::WebAsset assets[] = {
${table}};
}  // namespace

std::span<const photon::WebAsset> photon::web_assets() { return assets; }
")
