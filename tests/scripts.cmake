# Tests that drive the built programs from outside. They need Python 3 and nothing beside its library.
find_package(Python3 COMPONENTS Interpreter)

if(Python3_FOUND AND TARGET moeflux_cli)
  # Apart, so that the part which needs a model shows up as skipped where there is none.
  foreach(part Usage Tokenizer Inspect Model Convert)
    string(TOLOWER ${part} name)
    add_test(NAME cli_${name}
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cli/test_cli.py -v ${part})
    set_tests_properties(cli_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600 ENVIRONMENT
      "MOEFLUX_BIN=$<TARGET_FILE:moeflux_cli>;MOEFLUX_SOURCE=${PROJECT_SOURCE_DIR};MOEFLUX_ORACLE=${MF_ORACLE_DIR};MOEFLUX_SANITIZED=${MF_SANITIZE}")
  endforeach()
endif()
