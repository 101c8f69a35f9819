# Tests that drive the built programs from outside, and tests of the tree itself. They need Python 3 and
# nothing beside its library.
find_package(Python3 COMPONENTS Interpreter)

if(Python3_FOUND AND TARGET moeflux_cli)
  # Apart, so that the part which needs a model shows up as skipped where there is none.
  foreach(part Usage Tokenizer Model Convert)
    string(TOLOWER ${part} name)
    add_test(NAME cli_${name}
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cli/test_cli.py -v ${part})
    set_tests_properties(cli_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200 ENVIRONMENT
      "MOEFLUX_BIN=$<TARGET_FILE:moeflux_cli>;MOEFLUX_SOURCE=${PROJECT_SOURCE_DIR};MOEFLUX_ORACLE=${MF_ORACLE_DIR};MOEFLUX_SANITIZED=${MF_SANITIZE}")
  endforeach()
  add_test(NAME cli_hostile
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cli/test_hostile.py -v)
  set_tests_properties(cli_hostile PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200 ENVIRONMENT
    "MOEFLUX_BIN=$<TARGET_FILE:moeflux_cli>;MOEFLUX_SOURCE=${PROJECT_SOURCE_DIR};MOEFLUX_SANITIZED=${MF_SANITIZE}")
endif()

# The same for the files beside it: file, part, name.
set(metal_folder "")
if(MF_METAL_FAKE)
  set(metal_folder ${PROJECT_BINARY_DIR}/tests)
endif()
if(Python3_FOUND AND TARGET moeflux_cli)
  foreach(item "test_chat Piped chat_piped" "test_chat Terminal chat_terminal"
               "test_template Own template" "test_template Oracle template_oracle"
               "test_grammar Schemas grammar_schemas" "test_grammar Keywords grammar_keywords"
               "test_grammar Model grammar_model"
               "test_inspect Inspect inspect" "test_tools Tools tools" "test_tools WithModel tools_model"
               "test_texts Texts texts" "test_texts Lint texts_lint"
               "test_bench Bench bench" "test_perplexity Perplexity perplexity"
               "test_stop Stop stop" "test_stream Stream stream" "test_budget Budget budget"
               "test_chat_state State chat_state" "test_devices Devices devices"
               "test_devices Metal metal")
    string(REPLACE " " ";" item ${item})
    list(GET item 0 file)
    list(GET item 1 part)
    list(GET item 2 name)
    add_test(NAME cli_${name}
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cli/${file}.py -v ${part})
    set_tests_properties(cli_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200 ENVIRONMENT
      "MOEFLUX_METAL=${metal_folder};MOEFLUX_BIN=$<TARGET_FILE:moeflux_cli>;MOEFLUX_GSAMPLE=$<TARGET_FILE:gsample>;MOEFLUX_SOURCE=${PROJECT_SOURCE_DIR};MOEFLUX_ORACLE=${MF_ORACLE_DIR};MOEFLUX_SANITIZED=${MF_SANITIZE}")
  endforeach()
endif()

# The server, over its sockets.
if(Python3_FOUND AND MF_HAVE_SERVER AND TARGET moeflux_cli)
  foreach(item "http Requests" "http Life" "api OpenAI" "api Others" "api Company"
          "tools Tools" "page Page" "top Top" "options Options" "disk Full" "agents Agents" "stored Stored" "stored Background" "stored Conversations" "stored Broken")
    string(REPLACE " " ";" item ${item})
    list(GET item 0 file)
    list(GET item 1 part)
    string(TOLOWER ${part} name)
    add_test(NAME server_${name}
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/server/test_${file}.py -v ${part})
    set_tests_properties(server_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600 LABELS threads ENVIRONMENT
      "MOEFLUX_BIN=$<TARGET_FILE:moeflux_cli>;MOEFLUX_SOURCE=${PROJECT_SOURCE_DIR};MOEFLUX_SANITIZED=${MF_SANITIZE}")
  endforeach()
endif()

if(Python3_FOUND)
  add_test(NAME tree_tidy COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/tidy.py)
  find_program(MF_CXX NAMES c++ g++ clang++)
  add_test(NAME tree_headers
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tree/headers.py
                   ${PROJECT_SOURCE_DIR}/include/moeflux ${CMAKE_C_COMPILER} ${MF_CXX})
endif()

add_test(NAME tree_packages
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tree/packages.sh ${PROJECT_SOURCE_DIR}/tools/packages.sh)
add_test(NAME tree_fuzz
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tree/fuzz.sh ${PROJECT_SOURCE_DIR}/tools/fuzz.sh)

# The Objective-C sources as another compiler sees them.
find_program(MF_CLANG NAMES clang)
file(GLOB objc_folders /usr/lib/gcc/*/*/include)
find_path(MF_OBJC_INCLUDE objc/objc.h PATHS ${objc_folders})
if(NOT MF_CLANG OR NOT MF_OBJC_INCLUDE)
  message(STATUS "Objective-C is not checked with clang (clang: ${MF_CLANG}, objc.h: ${MF_OBJC_INCLUDE})")
endif()
foreach(file src/backend/metal/metal_device.m tests/metal/fake/fake_metal.m tests/metal/fake/foundation.m)
  get_filename_component(name ${file} NAME_WE)
  if(APPLE) # where the system's compiler has built it
    mfi_skipped(tree_objc_${name} "on macOS")
  elseif(NOT MF_CLANG OR NOT MF_OBJC_INCLUDE)
    mfi_skipped(tree_objc_${name} "no clang, or no objc.h (Debian: gobjc)")
  else()
    add_test(NAME tree_objc_${name}
             COMMAND ${MF_CLANG} -fsyntax-only -fobjc-runtime=gcc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra
                     -Wshadow -Werror -I${PROJECT_SOURCE_DIR}/tests/metal/fake -I${PROJECT_SOURCE_DIR}/tests
                     -I${PROJECT_SOURCE_DIR}/src -I${PROJECT_SOURCE_DIR}/include
                     -idirafter ${MF_OBJC_INCLUDE} ${PROJECT_SOURCE_DIR}/${file})
  endif()
endforeach()

# The module's sources as macOS's own compiler takes them, but for the headers: what came with macOS 15
# is used behind a question for it only, as one that asks nothing shows. glibc's headers want to know
# the processor, and have a word of clang's for this target.
set(macos_check ${MF_CLANG} -target arm64-apple-macosx13.0 -fsyntax-only -fno-objc-arc -std=gnu11
    -D_GNU_SOURCE -D__MAC_15_0=150000 -U__nonnull -Wall -Wextra -Wshadow -Wunguarded-availability -Werror
    -I${PROJECT_SOURCE_DIR}/tests/metal/fake -I${PROJECT_SOURCE_DIR}/src -I${PROJECT_SOURCE_DIR}/include
    -idirafter ${MF_OBJC_INCLUDE} -idirafter /usr/include/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu -idirafter /usr/include)
if(CMAKE_HOST_SYSTEM_PROCESSOR STREQUAL "x86_64")
  list(APPEND macos_check -D__x86_64__)
endif()
file(GLOB macos_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/metal/*.[cm])
if(APPLE)
  mfi_skipped(tree_macos "on macOS")
  mfi_skipped(tree_macos_unguarded "on macOS")
elseif(NOT MF_CLANG OR NOT MF_OBJC_INCLUDE)
  mfi_skipped(tree_macos "no clang, or no objc.h (Debian: gobjc)")
  mfi_skipped(tree_macos_unguarded "no clang, or no objc.h (Debian: gobjc)")
else()
  add_test(NAME tree_macos COMMAND ${macos_check} ${macos_sources})
  add_test(NAME tree_macos_unguarded COMMAND ${macos_check} -DHAS_RESIDENCY=1
           ${PROJECT_SOURCE_DIR}/src/backend/metal/metal_device.m)
  set_tests_properties(tree_macos_unguarded PROPERTIES PASS_REGULAR_EXPRESSION
                       "'newResidencySetWithDescriptor:error:' is only available on macOS 15.0 or newer")
endif()

# What is installed; a sanitizer's build has symbols and memory of its own and isn't.
if(Python3_FOUND AND NOT MF_SANITIZE AND APPLE)
  mfi_skipped(tree_symbols "it reads ELF")
elseif(Python3_FOUND AND NOT MF_SANITIZE)
  add_test(NAME tree_symbols
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tree/symbols.py
                   $<TARGET_FILE:moeflux> $<TARGET_FILE:moeflux_static> ${CMAKE_NM}
                   ${PROJECT_SOURCE_DIR}/include/moeflux)
endif()
if(TARGET moeflux_cli AND NOT MF_SANITIZE)
  set(model ${PROJECT_SOURCE_DIR}/models/pocket-dictionary)
  add_test(NAME tree_install
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tree/install.sh ${PROJECT_BINARY_DIR} ${model})
  set_tests_properties(tree_install PROPERTIES ENVIRONMENT "CC=${CMAKE_C_COMPILER}")
  add_test(NAME demo
           COMMAND ${PROJECT_SOURCE_DIR}/tools/demo.sh $<TARGET_FILE:moeflux_cli> ${model})
endif()
foreach(name tree_symbols tree_install)
  if(TEST ${name})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  endif()
endforeach()

# The kernels for ARM under qemu: a build of its own.
add_test(NAME kernels_arm COMMAND ${PROJECT_SOURCE_DIR}/tools/arm_kernels.sh --if-asked
                                  ${PROJECT_BINARY_DIR}/arm)
set_tests_properties(kernels_arm PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 3600)

# For ThreadSanitizer: what has more than one thread. `ctest -L threads`
foreach(name test_pool test_watch test_io_fake test_io_threads test_store test_identity test_reference
        test_tokenizer test_convert test_synth test_weight_map test_machine test_trace cli_convert cli_tools)
  if(TEST ${name})
    set_property(TEST ${name} APPEND PROPERTY LABELS threads)
  endif()
endforeach()
