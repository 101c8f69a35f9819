# The Metal kernels as one text: metal_kernels.h first, then each file, the includes of the tree left out.
# As metal_source.metal, which the tests compile as C++, and as metal_source.c, which has it in an
# array for the library to compile where it runs.
#   include(cmake/metal_source.cmake)   defines mfi_metal_source(), which sets MF_METAL_SOURCE_C,
#                                       MF_METAL_SOURCE_TEXT and makes the target metal_source
#   cmake -DOUT=... -DTOP=... -P        makes them
set(MF_METAL_FILES metal_kernels.h common.metal decode.metal decode_any.metal elem.metal matmul.metal
    attention.metal gdn.metal route.metal)

if(CMAKE_SCRIPT_MODE_FILE)
  set(text "")
  foreach(name ${MF_METAL_FILES})
    file(READ ${TOP}/src/backend/metal/${name} part)
    string(REGEX REPLACE "#include \"(backend/metal|quant)/[a-z_.]*\"\n" "\n" part "${part}")
    string(APPEND text "#line 1 \"${name}\"\n${part}")
  endforeach()
  file(WRITE ${OUT}/metal_source.metal "${text}")
  file(READ ${OUT}/metal_source.metal bytes HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(WRITE ${OUT}/metal_source.c "/* Made by cmake/metal_source.cmake. */
#include \"backend/metal/metal_kernels.h\"

const char mfi_metal_source[] = {
${bytes}
0};
const size_t mfi_metal_source_bytes = sizeof mfi_metal_source - 1;
")
  return()
endif()

function(mfi_metal_source)
  set(out ${PROJECT_BINARY_DIR}/metal)
  set(made ${out}/metal_source.metal ${out}/metal_source.c)
  if(NOT TARGET metal_source)
    list(TRANSFORM MF_METAL_FILES PREPEND ${PROJECT_SOURCE_DIR}/src/backend/metal/ OUTPUT_VARIABLE files)
    file(MAKE_DIRECTORY ${out})
    add_custom_command(OUTPUT ${made}
        COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DTOP=${PROJECT_SOURCE_DIR} -P
                ${PROJECT_SOURCE_DIR}/cmake/metal_source.cmake
        DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/metal_source.cmake VERBATIM)
    add_custom_target(metal_source DEPENDS ${made})
  endif()
  set(MF_METAL_SOURCE_TEXT ${out}/metal_source.metal PARENT_SCOPE)
  set(MF_METAL_SOURCE_C ${out}/metal_source.c PARENT_SCOPE)
endfunction()
