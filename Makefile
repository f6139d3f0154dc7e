# make demo    everything from a fresh checkout to a trained student
# make test    the tests of engine and package
# make check   the tests and every lint: what a change must pass
# make format  lay out the sources, write the generated files
# make build   the engine: ISA=all (default), native, v3, v4 or any
# make system venv bench clean

PYTHON ?= python3
SWIFT ?= swift
ISA ?= all
VENV := .venv
LIB := python/kdswift/lib
.DEFAULT_GOAL := build
# Steps build on one another, and each uses all processors by itself.
.NOTPARALLEL:

# --- processor variants -------------------------------------------------------------------------

MACHINE := $(shell uname -m)
CPU := $(sort $(shell grep -m1 '^flags' /proc/cpuinfo 2>/dev/null))
has = $(if $(filter $(words $(1)),$(words $(filter $(1),$(CPU)))),yes)
V3 := $(call has,avx2 bmi1 bmi2 f16c fma abm movbe)
V4 := $(call has,avx512f avx512bw avx512cd avx512dq avx512vl)

ifeq ($(MACHINE),x86_64)
NATIVE := $(if $(V3),$(if $(V4),v4,v3),any)
ALL := v3 v4
else
NATIVE := any
ALL := any
endif
VARIANTS := $(if $(filter all,$(ISA)),$(ALL),$(if $(filter native,$(ISA)),$(NATIVE),$(ISA)))
NATIVE_LIBRARY := $(LIB)/libkdswift-$(NATIVE).so

# -march belongs to the whole build: set for one target it leaks into the others by inlining.
march = $(if $(filter any,$(1)),,-Xcc -march=x86-64-$(1))

# --- the engine ---------------------------------------------------------------------------------

# Folders too: their dates tell of files that went away.
SOURCES := Package.swift $(shell find Sources 2>/dev/null)
# The OpenMP build of OpenBLAS, also where another build is the system's default.
OPENBLAS := $(firstword $(wildcard /usr/lib/$(MACHINE)-linux-gnu/openblas-openmp /usr/lib64/openblas-openmp))
search := $(if $(OPENBLAS),-Xlinker -L$(OPENBLAS))
# RPATH and not RUNPATH: it also serves the libraries that our libraries need.
link := $(search) -Xswiftc -static-stdlib -Xlinker -s \
  -Xlinker --version-script=$(CURDIR)/tools/exports.map \
  -Xlinker --disable-new-dtags -Xlinker -rpath -Xlinker '$$ORIGIN'

.PHONY: build native
build: $(VARIANTS:%=$(LIB)/libkdswift-%.so)
native: $(NATIVE_LIBRARY)

$(LIB)/libkdswift-%.so: $(SOURCES) tools/exports.map tools/vendor.py
	$(SWIFT) build -c release --product kdswift --scratch-path .build-$* $(call march,$*) $(link)
	@mkdir -p $(LIB)
	cp .build-$*/release/libkdswift.so $@.new && mv $@.new $@
	$(PYTHON) tools/vendor.py .build-$*/release/libkdswift.so $(LIB) $(OPENBLAS)

# --- surroundings -------------------------------------------------------------------------------

.PHONY: system venv
system:
	@PYTHON="$(PYTHON)" SWIFT="$(SWIFT)" bash tools/system.sh

venv: .stamps/venv
.stamps/venv: pyproject.toml setup.py | $(NATIVE_LIBRARY)
	@mkdir -p .stamps
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# --- what people ask for ------------------------------------------------------------------------

.PHONY: demo test test-swift test-python check exports lint format bench clean
demo: system native venv
	$(VENV)/bin/kdswift demo

test: system native venv
	@mkdir -p .stamps
	@set -o pipefail; failed=0; \
	$(MAKE) --no-print-directory test-swift 2>&1 | tee .stamps/swift.log || failed=1; \
	$(MAKE) --no-print-directory test-python 2>&1 | tee .stamps/python.log || failed=1; \
	echo; grep -E 'Test run with' .stamps/swift.log | tail -n 1; \
	grep -E '[0-9]+ (passed|failed|skipped|error).* in [0-9.]+' .stamps/python.log | tail -n 1; exit $$failed
test: SHELL := /bin/bash

test-swift:
	$(SWIFT) test -c release --disable-xctest --no-parallel --scratch-path .build-test \
	  $(call march,$(NATIVE)) $(search) $(if $(OPENBLAS),-Xlinker -rpath -Xlinker $(OPENBLAS))

test-python:
	$(VENV)/bin/python -m pytest python/tests

check: test lint build exports
	$(VENV)/bin/python tools/check_wheel.py

# Of every variant that is built.
exports: native
	$(PYTHON) tools/check_exports.py $(LIB)/libkdswift-*.so

lint: venv
	$(SWIFT) format lint --strict --recursive Package.swift Sources Tests
	$(VENV)/bin/ruff check python tools examples benchmarks setup.py
	$(VENV)/bin/ruff format --check python tools examples benchmarks setup.py
	$(PYTHON) tools/generate_signatures.py --check
	$(PYTHON) tools/lint.py

format: venv
	$(SWIFT) format --in-place --recursive Package.swift Sources Tests
	$(VENV)/bin/ruff check --quiet --fix python tools examples benchmarks setup.py
	$(VENV)/bin/ruff format --quiet python tools examples benchmarks setup.py
	$(PYTHON) tools/generate_signatures.py

# Beside PyTorch when the environment has it (pip install '.[torch]').
bench: system native venv
	$(VENV)/bin/python benchmarks/step.py

clean:
	rm -rf .build .build-* .venv .stamps build dist $(LIB) python/*.egg-info
