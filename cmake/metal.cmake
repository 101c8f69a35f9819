# The Metal backend: a module that the library opens at run time, like CUDA's.
#   MF_METAL=AUTO  built on macOS, said so elsewhere;  ON: an error elsewhere;  OFF
#   MF_METAL=FAKE  built with GCC's or clang's Objective-C against the tests' device (tests/metal), which
#                  runs the kernels on the processor: for tests, and never installed
set(MF_METAL AUTO CACHE STRING "Computing on Apple's GPUs: AUTO (on macOS), ON, OFF, or FAKE for tests")

set(MF_HAVE_METAL OFF)
if(MF_FUZZ)
  set(MF_METAL OFF)
endif()
if(MF_METAL STREQUAL "FAKE")
  include(CheckLanguage)
  check_language(OBJC)
  check_language(CXX)
  if(CMAKE_OBJC_COMPILER AND CMAKE_CXX_COMPILER)
    set(MF_HAVE_METAL ON)
  else()
    message(FATAL_ERROR "MF_METAL=FAKE wants an Objective-C and a C++ compiler (Debian: gobjc, g++)")
  endif()
elseif(APPLE AND NOT MF_METAL STREQUAL "OFF")
  set(MF_HAVE_METAL ON)
elseif(MF_METAL STREQUAL "ON")
  message(FATAL_ERROR "MF_METAL=ON, and this is no macOS")
endif()

if(NOT MF_HAVE_METAL)
  message(STATUS "Metal backend: NOT BUILT (MF_METAL=${MF_METAL})")
  return()
endif()
enable_language(OBJC)

include(cmake/metal_source.cmake) # MF_METAL_SOURCE_C: the kernels' text as a C file
file(GLOB MF_METAL_SOURCES CONFIGURE_DEPENDS src/backend/metal/*.c src/backend/metal/*.m)
file(GLOB MF_METAL_SHARED CONFIGURE_DEPENDS src/quant/ggml_legacy.c src/quant/ggml_k.c
     src/quant/ggml_iq.c src/quant/ggml_iq_tables.c src/quant/ggml_fp4.c src/quant/ggml_ternary.c
     src/quant/ggml_types.c src/quant/quant.c src/quant/dequant.c src/op/rope.c src/base/status.c)
add_library(moeflux_metal MODULE ${MF_METAL_SOURCES} ${MF_METAL_SOURCE_C} ${MF_METAL_SHARED})
target_include_directories(moeflux_metal PRIVATE src include)
set_target_properties(moeflux_metal PROPERTIES OUTPUT_NAME moeflux-metal OBJC_VISIBILITY_PRESET hidden
                      LINKER_LANGUAGE C)
# References are counted by hand. Warnings of both compilers are errors where C's are.
target_compile_options(moeflux_metal PRIVATE $<$<COMPILE_LANGUAGE:OBJC>:-std=gnu11;-Wall;-Wextra;-Wshadow>)
if(MF_WERROR)
  target_compile_options(moeflux_metal PRIVATE $<$<COMPILE_LANGUAGE:OBJC>:-Werror>)
endif()
if(MF_METAL STREQUAL "FAKE")
  message(STATUS "Metal backend: for tests, on a device that isn't there")
  enable_language(CXX)
  file(GLOB MF_METAL_FAKE CONFIGURE_DEPENDS tests/metal/fake/*.m)
  target_sources(moeflux_metal PRIVATE ${MF_METAL_FAKE})
  target_include_directories(moeflux_metal PRIVATE tests/metal/fake tests)
  if(CMAKE_OBJC_COMPILER_ID MATCHES "Clang")
    target_compile_options(moeflux_metal PRIVATE $<$<COMPILE_LANGUAGE:OBJC>:-fobjc-runtime=gcc>)
  endif()
  target_link_libraries(moeflux_metal PRIVATE moeflux_metal_shim objc m)
  set_target_properties(moeflux_metal PROPERTIES LINKER_LANGUAGE CXX)
else()
  message(STATUS "Metal backend: for ${CMAKE_OSX_DEPLOYMENT_TARGET} and later")
  target_compile_options(moeflux_metal PRIVATE $<$<COMPILE_LANGUAGE:OBJC>:-fno-objc-arc>)
  target_link_libraries(moeflux_metal PRIVATE "-framework Metal" "-framework Foundation")
  install(TARGETS moeflux_metal LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
