# On a fresh machine: `make demo`, `make test`. Both make .venv themselves. While one works: `make check`.
PYTHON ?= python3
# Where pip would fetch a CUDA build of torch: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo test test-deep check kill-test fuzz mutants lint type format bench claims peers gpu-check deploy-check docs clean
demo: .venv/.demo
	$(BIN)/foveal demo

PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# What must hold after every change: docs/testing.md.
test: lint type
	$(PYTEST)

# Before a release: all families, precisions and dialects together, and eight times the examples. Its result is kept in the docs.
test-deep: lint type
	FOVEAL_EXAMPLES=200 $(PYTEST) tests -m "deep or not deep" --record=docs/testing.md

# While one works: lint, types, and the tests nearest to what differs from the branch main, as many as take a minute.
check: lint type
	$(BIN)/python tests/touched.py

# Kills convert, calibrate, build and adding engines at 100 random points each: about ten minutes.
kill-test: .venv/.dev
	FOVEAL_KILLS=100 $(BIN)/python -m pytest -n 0 -s tests/test_kills.py

# 10,000 damaged checkpoints, bundles, plans and reports, instead of a few hundred: about half an hour.
fuzz: .venv/.dev
	FOVEAL_MUTANTS=10000 $(BIN)/python -m pytest -n 0 -s tests/test_fuzz.py

# Breaks the scheduler of batches in 33 ways, one after the other, and sees whether tests notice: about a quarter of an hour.
mutants: .venv/.dev
	$(BIN)/python tests/scheduler_mutants.py

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy names modules after the checkout's folder unless a link called foveal leads to it.
type: .venv/.dev
	mkdir -p .link && ln -sfn "$(CURDIR)" .link/foveal
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The figures of docs/performance.md, and which of them changed beyond noise, and the picture of docs/batches.md; about 20 minutes on
# a quiet machine. A part of it: .venv/bin/python -m foveal.bench.documented article
bench: .venv/.dev
	sh bench/performance.sh $(BIN)/foveal

# The figures and pictures of docs/claims.md; about half an hour on a quiet machine.
claims: .venv/.dev
	$(BIN)/foveal bench claims --save build/claims
	$(BIN)/python -m foveal.bench.claims build/claims/claims.json docs/claims.md
	cp build/claims/*.svg docs/

# foveal beside llama.cpp, OpenVINO and onnxruntime-genai, each in an environment of its own under build/peers (llama.cpp is compiled:
# 20 minutes), and the tables of docs/performance.md, of which README and the home page have the short one; about 10 minutes once all is there, on a quiet machine.
# make peers ARGUMENTS="--foveal before=/path/of/another/checkout/.venv/bin/python --rounds 3"
PEERS := $(BIN)/python -m foveal.bench.peers build/peers --document docs/performance.md
peers: .venv/.dev
	$(PEERS) $(ARGUMENTS)
	$(BIN)/python website/figures.py
	$(PEERS) --sequences 16 --prompt-tokens 128 --new-tokens 64 --only foveal --only llama.cpp $(ARGUMENTS)

# All that takes a GPU, in one go: build/gpu-check/gpu-check.md is the page. Where there is none it says so, and what it skips.
# make gpu-check ARGUMENTS="--on cuda:cpu -k hourglass": only that; cuda:cpu runs without a GPU.
gpu-check:
	PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh tests/gpu/check.sh $(ARGUMENTS)

# deploy/Dockerfile.cpu's instructions in a clean Debian, without a container engine, and what comes out of them, served: about four
# minutes, as root on Linux, with debootstrap. make deploy-check DEPLOY="--share /path/of/a/local/index"
deploy-check: .venv/.demo
	test -d build/demo/hourglass.bundle || $(BIN)/foveal convert models/checkpoints/hourglass build/demo/hourglass.bundle
	$(BIN)/python tests/deploy/clean_build.py build/deploy-base build/demo/hourglass.bundle $(DEPLOY)

# The site into build/site; warnings and links that lead nowhere are errors. To look at it: python3 -m http.server -d build/site
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python website/check.py build/site

clean:
	rm -rf .venv .venv-gpu .link build dist *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt .venv/.native
	$(PIP) -e ".[cpu,export,rtx]"
	touch $@

# Native decode steps (docs/engines.md), where there is a C++ compiler; without, stages run on onnxruntime alone.
.venv/.native: $(wildcard native/src/* native/*.py native/pyproject.toml) | .venv/bin/python
	if command -v $${CXX:-c++} > /dev/null; then $(PIP) ./native; else echo "no C++ compiler: foveal-native is not built, decode steps run on onnxruntime"; fi
	touch $@

.venv/.docs: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e ".[docs]"
	touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e ".[dev]"
	touch $@
