PYTHON ?= python3
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab

# A missing extension fails the tests that need it, instead of skipping them.
TEST_ENVIRONMENT := MMEVM_REQUIRE_EXT=1
# Tests of a file share fixtures, and so a process.
TEST_PROCESSES ?= 2
PYTEST := -m pytest tests -n $(TEST_PROCESSES) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env env-openmmlab demo demo-seg demo-mask demo-cls test test-openmmlab lint docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## Build .venv: pinned torch, the maintained forks of OpenMMLab's libraries, mmevm (15 minutes, once)
	@$(PYTHON) tools/setup_env.py onedl $(VENV)

env-openmmlab: ## Build .venv-openmmlab: the same with OpenMMLab's own packages (15 minutes, once)
	@$(PYTHON) tools/setup_env.py openmmlab $(VENV_OPENMMLAB)

demo: env ## Train on miniature COCO, evaluate and draw, on the CPU (10 minutes after make env)
	$(VENV)/bin/python tools/demo.py

demo-seg: env ## The same with a segmentor on miniature ADE20K (5 minutes after make env)
	$(VENV)/bin/python tools/demo_seg.py

demo-mask: env ## The same with Mask R-CNN on miniature COCO (5 minutes after make env)
	$(VENV)/bin/python tools/demo_mask.py

demo-cls: env ## The same with a classifier on handwritten digits and miniature ImageNet (5 minutes after make env)
	$(VENV)/bin/python tools/demo_cls.py

test: lint ## Lint, then run the whole test suite
	$(TEST_ENVIRONMENT) $(VENV)/bin/python $(PYTEST)

test-openmmlab: env-openmmlab ## Run what touches OpenMMLab's libraries on their own packages
	$(TEST_ENVIRONMENT) $(VENV_OPENMMLAB)/bin/python $(PYTEST) -m openmmlab

lint: env ## Check the Python code with ruff
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check -q .

docs: $(VENV)/docs-requirements ## Build the manual into build/docs; a warning is an error
	$(VENV)/bin/python -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs
	@echo "the manual: build/docs/index.html"

$(VENV)/docs-requirements: requirements/docs.txt | env
	$(VENV)/bin/python -m pip install -q -r $<
	@touch $@

clean: ## Remove build products; environments, data and training runs stay
	rm -rf build dist *.egg-info mmevm/_C*.so .pytest_cache .ruff_cache
