# Every target works on a bare machine with python3 >= 3.10, a C++ compiler and make; none does its work twice.
PYTHON ?= python3
# What pip is asked for; TORCH=torch is the newest.
TORCH ?= torch==2.13.0
# Where pip finds torch, if not where it finds the rest: the index URL that PyTorch's install page gives for a CPU, for one.
TORCH_INDEX ?=
VENV ?= .venv
JOBS ?= 2
# What `make check` leaves to `make test`; of one operator nothing is long to trace.
SLOW := emulated or builds or processes
CPU_ALONE := GANKERNELS_TEST_BACKENDS=cpu

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
SOURCES := setup.py pyproject.toml $(wildcard tools/setup_helpers/*.py) $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CXX_FILES := $(shell find csrc tests/gpu tools/ptxsim -name '*.cpp' -o -name '*.h' -o -name '*.c' -o -name '*.cu' -o -name '*.cuh')

ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)": make cannot keep a path with a space apart; name a folder without one)
endif

.PHONY: always build train check test lint format bench docs torture info dist matrix clean mutants gpu-first-contact gpu-test gpu-bench gpu-table cuda-build

build: $(STAMPS)/build

train: build
	$(BIN)/python -m gankernels train

# The CPU's own kernels, without emulation, nested builds, torch.compile and processes; OP=softmax_kl: of one operator.
check: build
ifdef OP
	$(CPU_ALONE) $(BIN)/python -m pytest -q tests/contract tests/operators/test_registration.py --operator $(OP) -m "not ($(SLOW))"
else
	$(CPU_ALONE) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not ($(SLOW) or dynamo)"
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

# Breaks the operators and the kernels for GPUs, one thing at a time, and fails where no test notices (25 minutes).
mutants: build
	$(BIN)/python -m tools.mutants --jobs $(JOBS)

# Attacks on every promise, in their long form (about an hour on two cores); `make test` runs a hundredth.
torture: build
	$(BIN)/python -m pip install --quiet clang-tidy
	$(BIN)/python -m tools.torture --jobs $(JOBS)

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

# An sdist and a wheel in dist/, audited, and used in an environment of their own; docs/results/dist.json says what came out.
dist: build
	MAX_JOBS=$(JOBS) $(BIN)/python -m tools.dist --torch "$(TORCH)" $(if $(TORCH_INDEX),--index "$(TORCH_INDEX)")

# Named combinations of torch, Python, compiler and Triton, each in an environment that is deleted after it: hours in all.
matrix: build
	$(BIN)/python -m tools.matrix --jobs $(JOBS) $(if $(TORCH_INDEX),--index "$(TORCH_INDEX)") $(NAMES)

info: build
	$(BIN)/python -m gankernels info

clean:
	rm -rf build $(STAMPS) gankernels/_build.json gankernels/*.so *.egg-info

# Changes where one of the settings does, and so redoes what follows from them.
MINOR := import sys; print("%d.%d" % sys.version_info[:2])
$(STAMPS)/settings: always
	@wanted=$$($(PYTHON) -c '$(MINOR)') || exit 1; \
	if [ -e $(BIN) ]; then \
	  there=$$($(BIN)/python -c '$(MINOR)' 2>/dev/null || echo "that is gone"); \
	  if [ "$$there" != "$$wanted" ]; then \
	    echo "$(VENV) is an environment of a Python $$there, and $(PYTHON) is Python $$wanted:"; \
	    echo "rm -r $(VENV), or keep it and make another one: make VENV=.venv-$$wanted PYTHON=$(PYTHON)"; \
	    exit 1; \
	  fi; \
	fi; \
	mkdir -p $(STAMPS); \
	settings="Python $$wanted, $(TORCH) from $(or $(TORCH_INDEX),the usual index)"; \
	echo "$$settings" | cmp -s - $@ || echo "$$settings" > $@

# The torch that stands there for other settings has to go: to pip it may be as good.
$(STAMPS)/torch: $(STAMPS)/settings
	$(PYTHON) -m venv $(VENV)
	$(if $(wildcard $@),$(BIN)/python -m pip uninstall --quiet --yes torch)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") "$(TORCH)"
	$(BIN)/python -m pip install --quiet "setuptools>=77" wheel ninja numpy
	touch $@

# The build sees the torch above, not one of pip's own: hence --no-build-isolation.
$(STAMPS)/build: $(STAMPS)/torch $(SOURCES)
	MAX_JOBS=$(JOBS) $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[train,test,lint,dropin,docs]"
	touch $@
