# The Metal backend: a module that the library opens at run time, like CUDA's.
#   MF_METAL=AUTO  on macOS as ON; elsewhere as FAKE where the tests are built and compilers for it are
#                  found, and said so where they aren't;  ON: an error where it isn't macOS;  OFF
#   MF_METAL=FAKE  for tests only: the same sources against a device that isn't there (tests/metal), in
#                  the tests' folder, where programs don't look, and never installed
set(MF_METAL AUTO CACHE STRING "Computing on Apple's GPUs: AUTO (on macOS), ON, OFF, or FAKE for tests")

set(metal ${MF_METAL})
set(MF_METAL_FAKE OFF)
# The tests' device doesn't run under ThreadSanitizer (tests/metal/CMakeLists.txt).
if(MF_FUZZ OR MF_SANITIZE MATCHES "thread")
  set(metal OFF)
endif()
if(metal STREQUAL "AUTO" AND APPLE)
  set(metal ON)
elseif(metal STREQUAL "AUTO" OR metal STREQUAL "FAKE")
  include(CheckLanguage)
  # The C compiler, if it knows the language; check_language would choose another, and believes one
  # that is given to it.
  file(GLOB objc_folders /usr/lib/gcc/*/*/include)
  find_path(MF_OBJC_INCLUDE objc/objc.h PATHS ${objc_folders}) # of GCC's runtime, in its own folder
  execute_process(COMMAND ${CMAKE_C_COMPILER} -x objective-c -fsyntax-only /dev/null
                  RESULT_VARIABLE no_objc OUTPUT_QUIET ERROR_QUIET)
  if(NOT CMAKE_OBJC_COMPILER AND MF_OBJC_INCLUDE AND no_objc EQUAL 0)
    set(CMAKE_OBJC_COMPILER ${CMAKE_C_COMPILER})
  endif()
  check_language(CXX)
  if(MF_TESTS AND CMAKE_OBJC_COMPILER AND CMAKE_CXX_COMPILER)
    set(metal FAKE)
  elseif(metal STREQUAL "FAKE")
    message(FATAL_ERROR "MF_METAL=FAKE wants tests, Objective-C and C++ (Debian: gobjc, g++)")
  else()
    set(metal OFF)
  endif()
elseif(metal STREQUAL "ON" AND NOT APPLE)
  message(FATAL_ERROR "MF_METAL=ON, and this is no macOS")
endif()

if(metal STREQUAL "OFF")
  message(STATUS "Metal backend: NOT BUILT, nor its tests (MF_METAL=${MF_METAL}, Objective-C: ${CMAKE_OBJC_COMPILER})")
  return()
endif()
enable_language(OBJC)

include(cmake/metal_source.cmake)
mfi_metal_source() # MF_METAL_SOURCE_C: the kernels' text as a C file
file(GLOB MF_METAL_SOURCES CONFIGURE_DEPENDS src/backend/metal/*.c src/backend/metal/*.m)
file(GLOB MF_METAL_SHARED CONFIGURE_DEPENDS src/quant/ggml_legacy.c src/quant/ggml_k.c
     src/quant/ggml_iq.c src/quant/ggml_iq_tables.c src/quant/ggml_fp4.c src/quant/ggml_ternary.c
     src/quant/ggml_types.c src/quant/quant.c src/quant/dequant.c src/op/rope.c src/base/status.c)
add_library(moeflux_metal MODULE ${MF_METAL_SOURCES} ${MF_METAL_SOURCE_C} ${MF_METAL_SHARED})
target_include_directories(moeflux_metal PRIVATE src include)
set_target_properties(moeflux_metal PROPERTIES OUTPUT_NAME moeflux-metal OBJC_VISIBILITY_PRESET hidden)
add_dependencies(moeflux_metal metal_source)
set(flags -std=gnu11 -Wall -Wextra -Wshadow)
if(MF_WERROR)
  list(APPEND flags -Werror)
endif()
if(metal STREQUAL "FAKE")
  message(STATUS "Metal backend: for tests, on a device that isn't there")
  set(MF_METAL_FAKE ON)
  enable_language(CXX)
  file(GLOB fake CONFIGURE_DEPENDS tests/metal/fake/*.m)
  target_sources(moeflux_metal PRIVATE ${fake})
  target_include_directories(moeflux_metal PRIVATE tests/metal/fake tests)
  if(CMAKE_OBJC_COMPILER_ID MATCHES "Clang")
    list(APPEND flags -fobjc-runtime=gcc -idirafter ${MF_OBJC_INCLUDE})
  endif()
  target_link_libraries(moeflux_metal PRIVATE metal_shim objc m)
  set_target_properties(moeflux_metal PROPERTIES LINKER_LANGUAGE CXX
                        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
else()
  message(STATUS "Metal backend: for macOS ${CMAKE_OSX_DEPLOYMENT_TARGET} and later")
  list(APPEND flags -fno-objc-arc) # references are counted by hand
  # Without CoreGraphics in the process a program of the command line is given no default device.
  target_link_libraries(moeflux_metal PRIVATE "-framework Metal" "-framework Foundation"
                        "-framework CoreGraphics")
  install(TARGETS moeflux_metal LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
target_compile_options(moeflux_metal PRIVATE "$<$<COMPILE_LANGUAGE:OBJC>:${flags}>")
