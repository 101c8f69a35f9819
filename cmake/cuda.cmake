# The CUDA backend: a module that the library opens at run time, so that one build runs with and
# without a driver. CUDA's runtime is linked into it; of CUDA only the driver is needed where it runs.
#   MF_CUDA=AUTO  built where nvcc is, said so where it isn't;  ON: an error where it isn't;  OFF
#   MF_CUDA_ARCHITECTURES  machine code for these, and PTX of the last for later devices
set(MF_CUDA_ARCHITECTURES "80-real;86-real;89-real;90" CACHE STRING
    "As CMAKE_CUDA_ARCHITECTURES: what the CUDA module has code for")

set(MF_HAVE_CUDA OFF)
# Sanitizers and the fuzzer look at the library; the module has no parser.
if(MF_SANITIZE OR MF_FUZZ)
  set(MF_CUDA OFF)
endif()
if(NOT MF_CUDA STREQUAL "OFF")
  find_program(MF_NVCC nvcc PATHS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
  if(MF_NVCC)
    if(NOT CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_COMPILER ${MF_NVCC})
    endif()
    set(CMAKE_CUDA_ARCHITECTURES ${MF_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(MF_HAVE_CUDA ON)
  elseif(MF_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MF_CUDA=ON, and there is no nvcc")
  endif()
endif()

if(NOT MF_HAVE_CUDA)
  message(STATUS "CUDA backend: NOT BUILT (MF_CUDA=${MF_CUDA}, nvcc: ${MF_NVCC})")
  return()
endif()
message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, for ${MF_CUDA_ARCHITECTURES}")

file(GLOB MF_CUDA_SOURCES CONFIGURE_DEPENDS src/backend/cuda/*.c src/backend/cuda/*.cu)
file(GLOB MF_CUDA_SHARED CONFIGURE_DEPENDS src/quant/ggml_legacy.c src/quant/ggml_k.c
     src/quant/ggml_iq.c src/quant/ggml_iq_tables.c src/quant/ggml_fp4.c src/quant/ggml_ternary.c
     src/quant/ggml_types.c src/quant/quant.c src/quant/dequant.c src/op/rope.c src/op/program.c src/base/status.c)
add_library(moeflux_cuda MODULE ${MF_CUDA_SOURCES} ${MF_CUDA_SHARED})
target_include_directories(moeflux_cuda PRIVATE src include)
target_link_libraries(moeflux_cuda PRIVATE CUDA::cudart_static)
set_target_properties(moeflux_cuda PROPERTIES OUTPUT_NAME moeflux-cuda CUDA_STANDARD 17
                      CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static LINKER_LANGUAGE CUDA)
# What the C flags say of floats holds here, too: products are fused where the source says so.
target_compile_options(moeflux_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>)
install(TARGETS moeflux_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
