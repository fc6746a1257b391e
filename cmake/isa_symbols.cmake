# Fails if an object file built with -m flags holds a weak symbol: an inline function or template that the linker may choose
# for the whole program, so that its AVX instructions crash an older CPU (see kernels/isa.h).
# cmake -DNM=nm -DFOLDER=avx2 -DOBJECTS=list -P isa_symbols.cmake looks at the objects whose source lies in FOLDER.
list(FILTER OBJECTS INCLUDE REGEX "/${FOLDER}/[^/]*$")
if(NOT OBJECTS)
  message(FATAL_ERROR "no object file is of ${FOLDER}/")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -C ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  string(REPLACE ";" "," symbols "${symbols}")
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(line IN LISTS symbols)
    if(line MATCHES " V DW\\.ref\\.__gxx_personality_v0$")
      # A pointer for the exception tables of instrumented code: data without instructions, the same in every object.
    elseif(line MATCHES "^[0-9a-f]* *[wWvVu] ")
      message(SEND_ERROR "${object} shares a symbol: ${line}")
    endif()
  endforeach()
endforeach()
