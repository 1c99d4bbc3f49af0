# The README's commands. Each sets up .venv by itself when it is missing or stale.

# An interpreter to build .venv with: the first of these that is recent enough and can make one.
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c "$(SUITABLE)" 2>/dev/null && echo $$python && break; done)

VENV := .venv
PY := $(VENV)/bin/python
# What `make demo` and `make figures` run. Those that train what ships are run by hand: 08 takes an
# hour, 12 some minutes.
NOTEBOOKS := \
	notebooks/01_vanilla_rollout.ipynb \
	notebooks/02_gradient_rollout.ipynb \
	notebooks/03_discard_ratio_sweep.ipynb \
	notebooks/04_head_fusion_grid.ipynb \
	notebooks/05_attention_flow.ipynb \
	notebooks/06_method_comparison.ipynb \
	notebooks/07_explorer.ipynb \
	notebooks/09_your_own_model.ipynb \
	notebooks/10_a_real_model.ipynb \
	notebooks/11_a_collection.ipynb

# Written last, so that a half-finished installation never looks finished. It names the checkout,
# because a moved or copied .venv still points at the old one.
STAMP := $(VENV)/.installed
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif

# The kernel "python3" is the one in .venv, whatever is installed for the user.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONPATH PYTHONHOME

.PHONY: help demo figures test mutants lab bench compare census manifest lint format FORCE
.DEFAULT_GOAL := help

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

# The demo model's products are small: on a busy machine two threads wait for each other.
demo figures: export OMP_NUM_THREADS := 1

demo: $(STAMP)  ## Run the notebooks on the demo model; results under runs/demo/
	@$(PY) -m rollout notebooks $(NOTEBOOKS) --out runs/demo

figures: $(STAMP)  ## Rerun the committed notebooks, and with them the README's pictures
	@$(PY) tools/rerun_notebooks.py $(NOTEBOOKS) --figures figures

test: lint  ## Check style and types, then run every test; ARGS="-k flow" goes to pytest
	$(PY) -m pytest $(ARGS)

mutants: export OMP_NUM_THREADS := 1

mutants: $(STAMP)  ## Change the code and see whether tests notice: an hour, goes on where it stopped
	@$(PY) -c "import cosmic_ray" 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[mutants]"
	@$(PY) tools/mutants.py $(ARGS)

# No question about news before the first notebook.
QUIET_LAB := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}

# All cores, but no thread that spins while it waits for one whose core another process has: on a busy
# machine that makes milliseconds into seconds.
lab: export OMP_WAIT_POLICY ?= PASSIVE
lab: $(STAMP)  ## Open JupyterLab on the first notebook; ARGS="--no-browser" goes to JupyterLab
	@mkdir -p $(VENV)/etc/jupyter/labconfig
	@echo '$(QUIET_LAB)' > $(VENV)/etc/jupyter/labconfig/default_setting_overrides.json
	@$(PY) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) $(firstword $(NOTEBOOKS))

bench: $(STAMP)  ## Measure speed and memory; VIT_EXPLAIN=path/to/vit-explain compares with it
	@$(PY) benchmarks/bench.py $(ARGS)

compare: $(STAMP)  ## Compare all methods on both models; writes benchmarks/RESULTS_METHODS.md
	@$(PY) benchmarks/compare.py --save $(ARGS)

census: $(STAMP)  ## Examine all of timm's architectures anew; writes data/models/census.csv
	@$(PY) -m rollout.models.census

manifest: $(STAMP)  ## Hash the shipped data anew, after a file under data/ changed
	@$(PY) tools/write_manifest.py

lint: $(STAMP)  ## Check style and types only
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(STAMP)  ## Put the code into the house style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# A finished environment of this checkout is brought up to date; anything else is built anew.
$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	if ! "$$python" -c "$(SUITABLE)" 2>/dev/null; then \
		echo "make: needs Python 3.11 or newer with its venv module, found: $${python:-none};" \
			"name one with make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if [ "$$(cat $@ 2>/dev/null)" = "$(CURDIR)" ]; then \
		rm $@; \
	else \
		rm -rf $(VENV) && "$$python" -m venv $(VENV); \
	fi
	@echo "Installing into $(VENV): several gigabytes and some minutes the first time ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@echo "$(CURDIR)" > $@
