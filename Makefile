# What a newcomer types: `make run`, then `make test`. `make` alone lists everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS_run := boost,notebooks
EXTRAS_dev := dev

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test prove lab app serve bench docs readme page picture model openapi lock clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "studperf needs Python 3.11 or later; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The environment could not be made. On Debian: apt-get install python3-venv"; exit 1; }

# An environment with exactly the tested versions, every file checked against its hash.
define install_locked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e '.[$(EXTRAS_$(1))]'
	@touch $@
endef

$(VENV)/run.done: requirements/run.lock settings.ini setup.py | $(BIN)/python
	@echo "Installing what the main job needs into $(VENV) ..."
	$(call install_locked,run)

$(VENV)/dev.done: requirements/dev.lock settings.ini setup.py | $(BIN)/python
	@echo "Installing everything that is tested into $(VENV) ..."
	$(call install_locked,dev)
	@touch $(VENV)/run.done

install: $(VENV)/run.done ## an environment for the main job in .venv

install-dev: $(VENV)/dev.done ## an environment for everything in .venv

run: install ## learn from the bundled sample, choose a model, save it, score a class list
	$(BIN)/studperf run nbs/pipelines/train.ipynb -p families null
	@$(BIN)/studperf data export class artifacts/class.csv >/dev/null
	$(BIN)/studperf predict artifacts/class.csv -o artifacts/scored.csv
	@echo; head -n 4 artifacts/scored.csv; echo "..."; echo
	@echo "The scored class list: artifacts/scored.csv      The model and its card: artifacts/production/card.md"
	@echo "Your own:    $(BIN)/studperf train --data class.csv --target grade      $(BIN)/studperf predict class.csv"
	@echo "Next:        make lab (the notebooks)      make app (a form in the browser)      make test"

test: install-dev ## every test: notebooks and package agree, notebooks run, pytest, docs
	$(BIN)/python tools/fresh.py
	$(BIN)/ruff check --quiet .
	$(BIN)/nbdev_test --n_workers 2
	$(BIN)/python -m pytest
	@$(MAKE) --no-print-directory docs

prove: install-dev ## the campaigns of tests/ in their full size
	STUDPERF_PROVE=1 $(BIN)/python -m pytest -s tests/test_properties.py tests/test_bundle_faults.py tests/test_kill.py tests/test_comparison.py \
	  tests/test_uncertainty.py tests/test_fairness.py tests/test_explanation.py tests/test_answers.py \
	  tests/test_compiled_trees.py tests/test_prediction_log.py tests/test_uploads.py tests/test_workbooks.py tests/test_student_panel.py \
	  tests/test_contract.py tests/test_service_load.py

lab: install-dev ## JupyterLab, opened at nbs/start.ipynb; LAB_FLAGS="--port 8889 --no-browser"
	@rm -rf $(VENV)/workspaces  # the layout of last time would open beside the landing notebook
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. --LabApp.default_url=/lab/tree/nbs/start.ipynb \
	  --LabApp.workspaces_dir=$(VENV)/workspaces $(LAB_FLAGS)

app: install-dev ## the page for people in the browser; APP_FLAGS="--port 8866 --no-browser"
	$(BIN)/studperf app $(APP_FLAGS)

page: install-dev ## make the notebook that `studperf app` serves from nbs/apps/predict.ipynb
	$(BIN)/python tools/page.py

serve: install-dev ## the REST service on this machine; SERVE_FLAGS="--port 8000"
	$(BIN)/studperf serve $(SERVE_FLAGS)

bench: install-dev ## what it costs, beside a baseline in the same run
	$(BIN)/python benchmarks/import.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/explain.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/ui.py

docs: install-dev ## build and check the site from _quarto.yml
	$(BIN)/python tools/docs.py

readme: install-dev ## make README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

picture: install-dev ## make the picture of the page in README.md (needs Chromium)
	$(BIN)/python tools/picture.py

model: install-dev ## make the sample, the class list and the model that ship with the package
	$(BIN)/python tools/ship_model.py

openapi: install-dev ## write artifacts/openapi.json, the contract of the service
	$(BIN)/python tools/openapi.py

lock: ## renew requirements/*.lock from settings.ini (needs uv)
	$(PYTHON) tools/lock.py

clean: ## remove what was made, artifacts excepted
	rm -rf $(VENV) _proc _docs build dist *.egg-info .pytest_cache .hypothesis test-artifacts
