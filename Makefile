# make demo: install, train, and see a picture.  make test: install with the test extras, run the tests.
# make faults: every fault test in full, and its table in docs/reliability.md (more than twenty minutes on two cores).
# make audit: ask PyPI about the locked releases (needs network).  make lock: write the lock anew (needs uv).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet
LOCK := requirements-test.lock
CHECKED := $(addprefix tinyflux_pl/,core diffusion nets codecs text denoisers)

.PHONY: demo test faults lint audit lock clean

demo: $(VENV)/.installed
	$(BIN)/python train.py model=tiny experts=lune_sol

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 1

faults: $(VENV)/.installed
	rm -f .faults.jsonl
	FAULTS=full FAULTS_FIGURES=$(CURDIR)/.faults.jsonl OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
		-o faulthandler_timeout=0 tests/faults; \
		status=$$?; FAULTS=full $(BIN)/python tests/faults/table.py .faults.jsonl docs/reliability.md && exit $$status

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check $(CHECKED)
	$(BIN)/ty check tinyflux_pl tests benchmarks --ignore all --error import-not-found --error unresolved-reference

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Each file is held to its sha256. setuptools goes first and builds what has no wheel, so that no build fetches another.
$(VENV)/.locked: $(LOCK) | $(VENV)/.python
	sed -n '/^setuptools==/,/[^\\]$$/p' $(LOCK) > $(VENV)/setuptools.lock
	$(PIP) --require-hashes -r $(VENV)/setuptools.lock
	$(PIP) --require-hashes --no-deps --no-build-isolation -r $(LOCK)
	@touch $@

# torch by its version alone: every platform and every kind of GPU has a build of its own under it
$(VENV)/.torch: constraints.txt $(VENV)/.locked
	$(PIP) -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# Not part of the tests, which hold the lock against tinyflux_pl/config/blocked_packages.py without network.
audit: $(VENV)/.python
	$(PIP) -c constraints.txt pip-audit
	$(BIN)/python -m pip_audit --strict --require-hashes --disable-pip -r $(LOCK)

# torch is left out with the libraries of CUDA that only some of its builds want; what every build wants is named here.
TORCH_WANTS := filelock fsspec jinja2 networkx setuptools sympy typing-extensions
lock:
	echo "torch; sys_platform == 'never'" > .lock-overrides
	{ echo '# Written by "make lock": every release of the test environment with the sha256 of each of its files, for every'; \
	  echo '# platform. Without torch, which "make" installs after it by the version in constraints.txt: its builds differ.'; \
	  printf '%s\n' $(TORCH_WANTS) | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-header --extra test -c constraints.txt --override .lock-overrides --no-emit-package torch pyproject.toml -; \
	} > $(LOCK).new && mv $(LOCK).new $(LOCK); status=$$?; rm -f .lock-overrides $(LOCK).new; exit $$status

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
