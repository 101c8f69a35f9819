# The two commands a newcomer needs; everything else is CMake (see CMakePresets.json).
#
#   make demo    packages, build, and the shipped model answering a few questions under a budget
#   make check   packages, build, all tests
#   make install PREFIX=/usr/local

BUILD ?= build
PREFIX ?= /usr/local
CMAKE_ARGS ?=
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: all demo check packages check-packages install clean

all: $(BUILD)/build.ninja
	cmake --build $(BUILD)

$(BUILD)/build.ninja: CMakeLists.txt tests/CMakeLists.txt | packages
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_ARGS)

packages:
	@tools/packages.sh

demo: packages
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_ARGS)
	cmake --build $(BUILD)
	@tools/demo.sh $(BUILD)/moeflux models/pocket-dictionary

check: packages
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_ARGS)
	cmake --build $(BUILD)
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)
	@sed -n 's/^skipped: /skipped: /p' $(BUILD)/Testing/Temporary/LastTest.log | sort | uniq -c

install: packages
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_ARGS)
	cmake --build $(BUILD)
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD)
