# Every target works on a bare machine with python3 >= 3.10, a C++ compiler and make; none does its work twice.
PYTHON ?= python3
# The CPU build of a pinned torch; set TORCH= for another (e.g. TORCH=torch for the newest CUDA build).
TORCH ?= torch==2.13.0
VENV ?= .venv
JOBS ?= 2
# What `make check` leaves to `make test`.
SLOW := emulated or builds or inductor or processes
CPU_ALONE := GANKERNELS_TEST_BACKENDS=cpu

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CXX_FILES := $(shell find csrc tests/gpu tools/ptxsim -name '*.cpp' -o -name '*.h' -o -name '*.c' -o -name '*.cu' -o -name '*.cuh')

.PHONY: build train check test lint format bench docs info clean mutants gpu-first-contact gpu-test gpu-bench gpu-table cuda-build

build: $(STAMPS)/build

train: build
	$(BIN)/python -m gankernels train

# The CPU's own kernels, without emulation, nested builds, Inductor and processes; OP=softmax_kl: of one operator.
check: build
ifdef OP
	$(CPU_ALONE) $(BIN)/python -m pytest -q tests/contract tests/operators/test_registration.py --operator $(OP) -m "not ($(SLOW))"
else
	$(CPU_ALONE) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not ($(SLOW))"
endif

test: build
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: build
	$(BIN)/python -m benchmarks.run

# The pages of docs/ as a site, in build/docs; every warning is an error (10 seconds of one core).
docs: build
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

# Breaks the operators, one sign or constant at a time, and fails where no test notices (about 20 minutes).
mutants: build
	$(BIN)/python -m tools.mutants --jobs $(JOBS)

# All that a machine with a GPU can tell, with the Python and the packages that it has: no network, no environment made.
gpu-first-contact:
	$(PYTHON) tools/gpu_first_contact.py --out $(or $(OUT),build/first-contact)

# For a machine with a GPU, in a clone of its own: make gpu-test TORCH=torch==2.14.1 (a CUDA build of torch).
gpu-test: build
	GANKERNELS_REQUIRE_GPU=1 $(BIN)/python -m pytest -q tests/gpu/device

gpu-bench: build
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu_steps

# The extension with its CUDA kernels, against a CUDA torch in an environment of its own; needs nvcc, but no GPU.
cuda-build:
	$(PYTHON) tools/cuda_build.py

# What the GPU kernels compile to; needs nvcc, but no GPU.
gpu-table: build
	$(BIN)/python -m tools.gpu_table

info: build
	$(BIN)/python -m gankernels info

clean:
	rm -rf build $(STAMPS) gankernels/_build.json gankernels/*.so *.egg-info

$(STAMPS)/torch:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet "$(TORCH)" "setuptools>=77" wheel ninja numpy
	touch $@

# The build sees the torch above, not one of pip's own: hence --no-build-isolation.
$(STAMPS)/build: $(STAMPS)/torch $(SOURCES)
	MAX_JOBS=$(JOBS) $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[train,test,lint,dropin,docs]"
	touch $@
