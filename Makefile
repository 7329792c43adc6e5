PYTHON ?= python3
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab
VENV_COMPILED := .venv-compiled-mmcv
TORCH ?= 2.10.0
VENV_TORCH = .venv-torch-$(TORCH)
VENV_WHEEL := .venv-wheel
WHEELS = dist/$(if $(filter 1,$(FORCE_CUDA)),cuda,cpu)

# A missing extension fails the tests that need it, instead of skipping them. The processes share the cores, on which
# more threads would only wait for each other; tests of several threads set their number themselves.
TEST_ENVIRONMENT := MMEVM_REQUIRE_EXT=1 OMP_NUM_THREADS=1
# Tests of a file share fixtures, and so a process; tests/durations.py puts the longest files first.
TEST_PROCESSES ?= 2
PYTEST := -m pytest tests -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env env-openmmlab demo demo-seg demo-mask demo-cls demo-trees demo-fashion test test-fast test-openmmlab
.PHONY: test-compiled-mmcv test-torch test-cuda-resources test-arm lint docs wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.ready ## Build .venv: pinned torch, the maintained forks of OpenMMLab's libraries, mmevm (5 GB, once)

env-openmmlab: $(VENV_OPENMMLAB)/.ready ## Build .venv-openmmlab: the same with OpenMMLab's own packages (5 GB, once)

demo: env ## Train on miniature COCO, evaluate and draw, on the CPU (6 minutes after make env)
	$(VENV)/bin/python tools/demo.py

demo-seg: env ## The same with a segmentor on miniature ADE20K (5 minutes after make env)
	$(VENV)/bin/python tools/demo_seg.py

demo-mask: env ## The same with Mask R-CNN on miniature COCO (5 minutes after make env)
	$(VENV)/bin/python tools/demo_mask.py

demo-cls: env ## The same with a classifier on handwritten digits and miniature ImageNet (5 minutes after make env)
	$(VENV)/bin/python tools/demo_cls.py

demo-trees: env ## Find trees in airborne photographs, which are downloaded: tile, train, evaluate, draw (10 minutes)
	$(VENV)/bin/python tools/demo_trees.py

demo-fashion: env ## Train a narrow classifier on Fashion-MNIST, which is downloaded (50 minutes)
	$(VENV)/bin/python tools/demo_fashion.py

test: lint ## Lint, then run the whole test suite
	$(TEST_ENVIRONMENT) $(VENV)/bin/python $(PYTEST)

test-fast: lint ## Lint, then run the fast tests, while working
	$(TEST_ENVIRONMENT) $(VENV)/bin/python $(PYTEST) -q -m 'not slow'

test-openmmlab: env-openmmlab ## Run what touches OpenMMLab's libraries on their own packages
	$(TEST_ENVIRONMENT) $(VENV_OPENMMLAB)/bin/python $(PYTEST) -m openmmlab

test-compiled-mmcv: $(VENV_COMPILED)/.ready ## Compare mmevm.mmcv_ext with mmcv's compiled operators (compiles 10 minutes, once)
	$(VENV_COMPILED)/bin/python -m pytest tests/compiled_mmcv

test-torch: $(VENV_TORCH)/.ready ## Run operator, parity and export tests of the built extension on another torch: TORCH=2.10.0
	@test -f mmevm/_C.abi3.so || { echo "mmevm/_C.abi3.so is not built: run make extension"; exit 1; }
	$(TEST_ENVIRONMENT) PYTHONPATH=. $(VENV_TORCH)/bin/python -m pytest -m 'not openmmlab' -n $(TEST_PROCESSES) --dist loadfile \
	tests/test_ops tests/test_layers tests/test_backbones $(addprefix --ignore-glob=*/,test_core.py test_cuda_emulated.py test_triton*)

test-cuda-resources: env ## Compile the CUDA kernels for four architectures; compare registers, spills and occupancy (4 minutes)
	$(VENV)/bin/python -m tests.test_ops.cuda_resources

test-arm: ## Compile csrc/core for 64-bit ARM, check it in an emulator (needs g++-aarch64-linux-gnu and qemu-user)
	@mkdir -p build/arm
	aarch64-linux-gnu-g++ -std=c++17 -O2 -Wall -static -Icsrc csrc/core/*.cpp tests/emulation/check_core.cpp -o build/arm/check_core
	qemu-aarch64 build/arm/check_core

lint: env ## Check format, code and types
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check -q .
	$(VENV)/bin/python -m mypy

docs: $(VENV)/.docs ## Build the manual into build/docs; a warning is an error
	$(VENV)/bin/python -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs
	@echo "the manual: build/docs/index.html"

wheel: $(VENV_WHEEL)/.ready ## Build an sdist and a manylinux wheel in dist/cpu; FORCE_CUDA=1: with CUDA kernels, in dist/cuda
	rm -rf build/wheel $(WHEELS)
	$(VENV)/bin/python -c "from setuptools.build_meta import build_sdist; build_sdist('$(WHEELS)')"
	MMEVM_BUILD_EXT=1 FORCE_CUDA=$(if $(filter 1,$(FORCE_CUDA)),1,0) \
	$(VENV)/bin/python -m pip --disable-pip-version-check wheel -q $(EXACT) -w build/wheel $(WHEELS)/*.tar.gz
	PATH="$(CURDIR)/$(VENV_WHEEL)/bin:$$PATH" auditwheel repair --plat manylinux_2_28_$$(uname -m) -w $(WHEELS) \
	$(addprefix --exclude ,'libtorch*' 'libc10*' 'libgomp*' 'libcudart*') build/wheel/*.whl
	@ls -l $(WHEELS)

clean: ## Remove build products; environments, data and training runs stay
	rm -rf build dist *.egg-info mmevm/_*.so .pytest_cache .ruff_cache .mypy_cache

# Environments. A file .NAME in an environment records that a step is done; a step is done again when a file that it
# depends on is newer. What mmcv's operators are there for is in mmevm/mmcv_ext; MMEVM_COMPILE_MMCV=1 compiles them.
MMEVM_COMPILE_MMCV ?= 0
# Python compiles modules when they are first imported; compiling every installed file takes a minute or two.
PIP := -m pip --disable-pip-version-check install --no-compile
EXACT := --no-deps --no-build-isolation

# $(call ENVIRONMENT,stack,folder,1 to compile mmcv's operators)
define ENVIRONMENT
$(2)/.torch: requirements/build.txt requirements/torch.txt
	@$$(PYTHON) tools/check_machine.py
	@echo "[1/4] torch and build tools into $(2): 5 GB, 2 to 3 minutes"
	$$(PYTHON) -m venv --clear $(2)
	$(2)/bin/python $$(PIP) -r requirements/build.txt -r requirements/torch.txt
	@touch $$@

$(2)/.libraries: $(2)/.torch requirements/common.txt requirements/dev.txt requirements/$(1).txt requirements/mmcv-$(1).txt
	@echo "[2/4] the libraries of $(1): 1 minute"
	$(2)/bin/python $$(PIP) -q $$(EXACT) -r requirements/common.txt
	$(2)/bin/python $$(PIP) -q -r requirements/dev.txt -c requirements/torch.txt
	$(2)/bin/python $$(PIP) -q $$(EXACT) -r requirements/$(1).txt
	$(if $(filter 1,$(3)),@echo "[3/4] mmcv with compiled operators: 20 minutes of a core" && \
	MMCV_WITH_OPS=1 $(2)/bin/python $$(PIP) -q $$(EXACT) --no-cache-dir --no-binary :all: \
	"$$$$(sed -n 's/-lite==/==/; /==/p' requirements/mmcv-$(1).txt)",@echo "[3/4] mmcv" && \
	MMCV_WITH_OPS=0 $(2)/bin/python $$(PIP) -q --no-deps -r requirements/mmcv-$(1).txt)
	@touch $$@

$(2)/.ready: $(2)/.libraries $(EXTENSION_SOURCES) pyproject.toml mmevm/version.py
	@echo "[4/4] mmevm: 2 minutes of compiling when its C++ or CUDA sources have changed"
	@$$(MAKE) --no-print-directory BUILDER=$(2)/bin/python extension
	MMEVM_BUILD_EXT=0 $(2)/bin/python $$(PIP) -q $$(EXACT) -e .
	$(2)/bin/python -W ignore -m mmevm.mmcv_ext install
	@$(2)/bin/python -W ignore -c "import mmevm, mmcv.ops, mmdet.apis, mmseg.apis, mmpretrain.apis"
	@touch $$@
	@echo "$(2) is ready"
endef

# The extension is one file in the source tree for all environments.
EXTENSION_SOURCES := $(shell find csrc -type f) setup.py mmevm/_cuda_toolkit.py mmevm/ops/torch_release.py mmevm/ops/schemas.inc
MMEVM_BUILD_EXT ?= 1
BUILDER = $(VENV)/bin/python
# Without a GPU that says which, one architecture and its PTX, to see that the CUDA kernels compile.
ifeq ($(wildcard /dev/nvidia[0-9]*),)
export TORCH_CUDA_ARCH_LIST ?= 9.0+PTX
endif

.PHONY: extension
extension: $(if $(filter 0,$(MMEVM_BUILD_EXT)),,mmevm/_C.abi3.so)

mmevm/_C.abi3.so: $(EXTENSION_SOURCES)
	MMEVM_BUILD_EXT=$(MMEVM_BUILD_EXT) $(BUILDER) setup.py -q build_ext --inplace
	@touch -c $@

$(eval $(call ENVIRONMENT,onedl,$(VENV),$(MMEVM_COMPILE_MMCV)))
$(eval $(call ENVIRONMENT,openmmlab,$(VENV_OPENMMLAB),$(MMEVM_COMPILE_MMCV)))
$(eval $(call ENVIRONMENT,onedl,$(VENV_COMPILED),1))

# The CPU build where the index has one; else the default build, with 5 GB of CUDA libraries.
$(VENV_TORCH)/.ready: requirements/test-torch.txt
	$(PYTHON) -m venv --clear $(VENV_TORCH)
	$(VENV_TORCH)/bin/python $(PIP) -q --no-cache-dir torch==$(TORCH)+cpu || \
	$(VENV_TORCH)/bin/python $(PIP) -q --no-cache-dir torch==$(TORCH)
	$(VENV_TORCH)/bin/python $(PIP) -q -r $< -c requirements/common.txt -c requirements/dev.txt
	$(VENV_TORCH)/bin/python $(PIP) -q --no-deps $(filter onedl-mmengine==%,$(shell cat requirements/onedl.txt))
	@touch $@

$(VENV_WHEEL)/.ready: requirements/wheel.txt
	$(PYTHON) -m venv --clear $(VENV_WHEEL)
	$(VENV_WHEEL)/bin/python $(PIP) -q -r $<
	@touch $@

$(VENV)/.docs: requirements/docs.txt | env
	$(VENV)/bin/python $(PIP) -q -r $<
	@touch $@
