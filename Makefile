# For a machine with python3 (3.11 or newer), make and a package registry. `make help` lists the targets.

PYTHON ?= python3
SEEDS ?= 1
TESTS ?= all
WORKERS ?= 2
UV ?= uv
LIMIT ?= 300

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV ?= .venv-$(PYTHON_VERSION)
BIN = $(VENV)/bin
MODULE = $(BIN)/python -m
CROSSCHECK ?= .venv-crosscheck
DOCS ?= .venv-docs
PYTHON_CROSSCHECK ?= $(PYTHON)
ONNX ?= .venv-onnx

# The tests that depend on the versions of Python and jax rather than on files, data and the command line.
CORE = mathematics attacks budgets pruners losses training structure models
ifeq ($(TESTS),all)
  SELECTED =
else ifeq ($(TESTS),core)
  SELECTED = $(CORE:%=tests/%) $(CORE:%=bap_jax/%)
else
  SELECTED = $(TESTS)
endif

.PHONY: help demo test soak lint types docs format lock clean environment crosscheck onnx

help: ## list the targets and variables
	@echo 'make demo    install, then the main job on the digits: a table, and runs/demo/report.html'
	@echo 'make test    install, then every test but the long ones'
	@echo 'make soak    install, then the long tests'
	@echo 'make lint    ruff: rules and format'
	@echo 'make types   mypy'
	@echo 'make docs    the site, build/docs/index.html, its tutorials run; a warning is an error'
	@echo 'make format  mend what ruff can mend'
	@echo 'make lock    compile requirements.txt from pyproject.toml (needs uv); LOCK=--upgrade for newer versions'
	@echo 'make crosscheck RUN=runs/NAME   our attacks against AutoAttack, torchattacks, foolbox, adv-lib on a run'"'"'s network: docs/crosscheck.md'
	@echo 'make onnx RUN=runs/NAME   its network as ONNX, and onnxruntime'"'"'s logits against ours; ARGS="--models all": docs/export.md'
	@echo 'make clean   remove environments, caches and build products; runs/ stays'
	@echo
	@echo 'PYTHON=$(PYTHON)   the interpreter, 3.11 or newer'
	@echo 'VENV=$(VENV)   the folder of the environment'
	@echo 'SEEDS=$(SEEDS)   seeds of the demo'
	@echo 'TESTS=$(TESTS)   all, core, or files and folders'
	@echo 'WORKERS=$(WORKERS)   test processes'
	@echo 'LIMIT=$(LIMIT) DATA_DIR= ARGS=   of make crosscheck; ARGS=--speed times, ARGS="--attacks apgd,fab --seeds 5" chooses'
	@echo 'UV=$(UV)   installs faster where it is found; UV= for pip alone'

demo: environment
	$(BIN)/bap demo --seeds $(SEEDS) --out runs/demo

test: environment
	$(MODULE) pytest -m 'not soak' -n $(WORKERS) --dist loadfile $(SELECTED)

soak: environment
	$(MODULE) pytest -m soak -n $(WORKERS) $(SELECTED)

lint: environment
	$(MODULE) ruff check .
	$(MODULE) ruff format --check .

docs: environment $(DOCS)/installed
	$(DOCS)/bin/python -m sphinx -b html -W --keep-going -q docs build/docs
	@echo 'site: build/docs/index.html'

# The site's own packages; this package and what it needs are those of $(VENV).
$(DOCS)/installed: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -r docs/requirements.txt
	for folder in "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$$PWD"; do echo "$$folder"; done \
	  > "$$($(DOCS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bap_jax.pth"
	touch $@

types: environment
	$(MODULE) mypy

format: environment
	$(MODULE) ruff check --fix .
	$(MODULE) ruff format .

environment:
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo 'bap_jax needs Python 3.11 or newer, and "$(PYTHON)" does not run here.' >&2; \
	  echo 'Install one, or name it: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'bap_jax needs Python 3.11 or newer, and "$(PYTHON)" is Python $(PYTHON_VERSION).' >&2; \
	  echo 'Install a newer one, or name it: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) tools/environment.py '$(VENV)' --uv '$(UV)'

crosscheck: environment $(CROSSCHECK)/installed
	@test -n '$(RUN)' || { echo 'make crosscheck needs RUN=, the folder of a trained run' >&2; exit 1; }
	$(MODULE) tools.crosscheck.compare --run '$(RUN)' --reference $(CROSSCHECK)/bin/python --limit $(LIMIT) \
	  $(if $(DATA_DIR),--data-dir '$(DATA_DIR)') $(ARGS)

# torchattacks and adv-lib ask for torchvision, visdom and old versions that the attacks compared do not need.
$(CROSSCHECK)/installed: tools/crosscheck/requirements.txt
	$(PYTHON_CROSSCHECK) -m venv $(CROSSCHECK)
	$(CROSSCHECK)/bin/python -m pip install --quiet -r tools/crosscheck/requirements.txt
	$(CROSSCHECK)/bin/python -m pip install --quiet --no-deps torchattacks==3.5.1 adv-lib==0.2.8
	touch $@

onnx: environment $(ONNX)/installed
	@test -n '$(RUN)$(ARGS)' || { echo 'make onnx needs RUN=, the folder of a trained run, or ARGS="--models all"' >&2; exit 1; }
	$(MODULE) tools.onnx.compare --onnx $(ONNX)/bin/python $(if $(RUN),--run '$(RUN)') $(if $(DATA_DIR),--data-dir '$(DATA_DIR)') $(ARGS)

# jax2onnx wants an older orbax-checkpoint than this package does.
$(ONNX)/installed: tools/onnx/requirements.txt
	$(PYTHON) -m venv $(ONNX)
	$(ONNX)/bin/python -m pip install --quiet -r tools/onnx/requirements.txt
	touch $@

lock:
	@$(UV) --version >/dev/null 2>&1 || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --extra dev --extra tensorboard $(LOCK) \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --quiet --output-file requirements.txt

clean:
	rm -rf .venv-[0-9]* $(CROSSCHECK) $(ONNX) $(DOCS) docs/reference build dist *.egg-info
	rm -rf .cache .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find bap_jax experiments tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
