# Two commands are enough: `make demo` and `make test`. Both install into .venv first; a second call reuses it.
# PYTHON=python3.12 make test    chooses the interpreter (Python 3.10 or newer); without it an existing .venv is kept

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := tests,dev,efficientnet,text,onnx,web,video,docs
PYTEST_ARGS ?=
# Processes of `make test`; those of a file's tests that share a run stay together.
TEST_JOBS ?= 2

# The demo: the scenes to make, and the settings of training and test.
# `make demo DEMO_SHORT=1` is the short one of .ci/run, in folders of its own.
DEMO_CONFIG := configs/mt_synthetic_lv.py
DEMO_NAME := $(if $(DEMO_SHORT),synthetic_short,synthetic)
DEMO_DATA := data/$(DEMO_NAME)
DEMO_WORK_DIR := work_dirs/mt_$(DEMO_NAME)_lv
DEMO_TRAIN ?= $(if $(DEMO_SHORT),16,200)
DEMO_VAL ?= $(if $(DEMO_SHORT),8,40)
DEMO_OPTIONS ?= $(if $(DEMO_SHORT),--cfg-options train_cfg.max_epochs=2 \
	$(foreach loader,train val test,$(loader)_dataloader.dataset.data_root=$(DEMO_DATA)))

# The same for three datasets with different labels.
HET_CONFIG := configs/het_synthetic.py
HET_NAME := $(if $(DEMO_SHORT),heterogeneous_short,heterogeneous)
HET_DATA := data/synthetic_$(HET_NAME)
HET_WORK_DIR := work_dirs/het_synthetic$(if $(DEMO_SHORT),_short)
HET_TRAIN ?= $(if $(DEMO_SHORT),16,400)
HET_VAL ?= $(if $(DEMO_SHORT),8,80)
HET_SIZE ?= $(if $(DEMO_SHORT),256x160,320x192)
HET_OPTIONS ?= $(if $(DEMO_SHORT),--cfg-options train_cfg.max_iters=12 train_cfg.val_interval=12 \
	$(foreach loader,train val test,$(foreach source,imagenet coco ade20k,\
	$(loader)_dataloader.dataset.sources.$(source).dataset.data_root=$(HET_DATA)/$(source))) \
	$(foreach loader,val test,$(loader)_evaluator.tasks.det.ann_file=$(HET_DATA)/coco/annotations/instances_val2017.json))

# Pre-training, on the scenes of `make demo`.
HVP_CONFIG := configs/hvp_synthetic.py
HVP_WORK_DIR := work_dirs/hvp_synthetic$(if $(DEMO_SHORT),_short)
HVP_OPTIONS ?= $(if $(DEMO_SHORT),--cfg-options train_cfg.max_iters=4 train_cfg.val_interval=4 \
	$(foreach loader,train val test,$(loader)_dataloader.dataset.sources.synthetic.dataset.reader.data_root=$(DEMO_DATA)))

# The same data for a mixture of experts, and the scenes of `make demo` for the task that is added to it.
MOE_CONFIG := configs/het_moe_synthetic.py
MOE_WORK_DIR := work_dirs/het_moe_synthetic$(if $(DEMO_SHORT),_short)
MOE_TRAINED := $(MOE_WORK_DIR)/$(notdir $(MOE_CONFIG))
MOE_CHECKPOINT := "$$(cat $(MOE_WORK_DIR)/last_checkpoint)"
MOE_ADDED_OPTIONS ?= $(if $(DEMO_SHORT),--train-options train_cfg.max_iters=4 train_cfg.val_interval=4 \
	$(foreach loader,train val test,$(loader)_dataloader.dataset.sources.scenes.dataset.data_root=$(DEMO_DATA)))

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-het demo-moe demo-hvp demo-zoo web test test-slow lint types docs clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: setup  ## install, make data, train in two stages, test, draw
	$(BIN)/python tools/dataset_converters/synthetic_bdd100k.py $(DEMO_DATA) --train $(DEMO_TRAIN) --val $(DEMO_VAL) --size 320x192 --seed 0
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_WORK_DIR) $(DEMO_OPTIONS)
	$(BIN)/python tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_WORK_DIR)/finetune/last_checkpoint)" --work-dir $(DEMO_WORK_DIR) --show-dir $(DEMO_WORK_DIR)/pictures $(DEMO_OPTIONS)
	$(BIN)/python -W ignore tools/analysis_tools/constant_baseline.py $(DEMO_CONFIG) $(DEMO_OPTIONS)
	@echo "Ground truth beside prediction: $(DEMO_WORK_DIR)/pictures"

demo-het: setup  ## train one network on three datasets with different labels, test, draw
	$(BIN)/python tools/dataset_converters/synthetic_heterogeneous.py $(HET_DATA) --train $(HET_TRAIN) --val $(HET_VAL) --size $(HET_SIZE) --seed 0
	$(BIN)/python tools/train.py $(HET_CONFIG) --work-dir $(HET_WORK_DIR) $(HET_OPTIONS)
	$(BIN)/python tools/test.py $(HET_CONFIG) "$$(cat $(HET_WORK_DIR)/last_checkpoint)" --work-dir $(HET_WORK_DIR) --show-dir $(HET_WORK_DIR)/pictures $(HET_OPTIONS)
	@echo "Ground truth beside prediction: $(HET_WORK_DIR)/pictures"

demo-moe: setup  ## train a mixture of experts on three tasks, take one out, add a fourth
	$(BIN)/python tools/dataset_converters/synthetic_heterogeneous.py $(HET_DATA) --train $(HET_TRAIN) --val $(HET_VAL) --size $(HET_SIZE) --seed 0
	$(BIN)/python tools/dataset_converters/synthetic_bdd100k.py $(DEMO_DATA) --train $(DEMO_TRAIN) --val $(DEMO_VAL) --size 320x192 --seed 0
	$(BIN)/python tools/train.py $(MOE_CONFIG) --work-dir $(MOE_WORK_DIR) $(HET_OPTIONS)
	rm -rf $(MOE_WORK_DIR)/det $(MOE_WORK_DIR)/drivable
	$(BIN)/python tools/moe/prune.py $(MOE_TRAINED) $(MOE_CHECKPOINT) --tasks det --keep-top-k --evaluate --out $(MOE_WORK_DIR)/det
	$(BIN)/python tools/moe/extend.py $(MOE_TRAINED) $(MOE_CHECKPOINT) --from configs/het_moe_synthetic_drivable.py --task drivable --experts 2 --out $(MOE_WORK_DIR)/drivable $(MOE_ADDED_OPTIONS)
	$(BIN)/python tools/train.py $(MOE_WORK_DIR)/drivable/config.py
	$(BIN)/python tools/moe/same_outputs.py $(MOE_TRAINED) $(MOE_CHECKPOINT) $(MOE_WORK_DIR)/drivable/config.py "$$(cat $(MOE_WORK_DIR)/drivable/training/extend/last_checkpoint)"
	@echo "Use of the experts: $(MOE_WORK_DIR)/expert_usage"

demo-hvp: setup  ## pre-train a backbone with labels, masked images and contrast
	$(BIN)/python tools/dataset_converters/synthetic_bdd100k.py $(DEMO_DATA) --train $(DEMO_TRAIN) --val $(DEMO_VAL) --size 320x192 --seed 0
	$(BIN)/python tools/train.py $(HVP_CONFIG) --work-dir $(HVP_WORK_DIR) $(HVP_OPTIONS)
	@echo "What the decoder makes of masked images: $(HVP_WORK_DIR)/reconstructions"

demo-zoo: setup  ## compare pretrained checkpoints on three tasks, write the report
	$(BIN)/python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
	$(BIN)/python tools/benchmark_pretrained.py configs/zoo/demo.yaml --jobs 2
	@echo "Report: work_dirs/zoo_demo/report/report.html"

web: setup  ## the model of `make demo` on a page in the browser
	$(BIN)/python tools/web_demo.py $(DEMO_CONFIG) $(DEMO_WORK_DIR)/finetune --examples $(DEMO_DATA)/images/100k/val

test: setup  ## install, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' -n $(TEST_JOBS) --dist loadscope $(PYTEST_ARGS) tests

test-slow: setup  ## run the slow tests
	$(BIN)/python -m pytest -q -m slow $(PYTEST_ARGS) tests

lint: setup  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## check the types
	$(BIN)/mypy mtadapt tools

docs: setup  ## build the pages of docs/ as a site, every warning an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "Site: docs/_build/html/index.html"

clean:  ## remove .venv and everything that was made or cached, but no data and no runs
	rm -rf $(VENV) build dist docs/_build *.egg-info mtadapt/.mim .pytest_cache .mypy_cache .ruff_cache
	find mtadapt tools tests configs -name __pycache__ -type d -prune -exec rm -rf {} +

# What the installation depends on, boiled down to one line. .venv/.stamp holds the line of the last one that succeeded.
STAMP = $$(cat setup.py mtadapt/version.py requirements/*.txt | cksum) $(EXTRAS) $(CURDIR)
VERSION = import sys; print('%d.%d' % sys.version_info[:2])
CONSTRAINTS := requirements/constraints.txt

setup:  ## install into .venv, or bring it up to date
	@set -eu; \
	fail() { echo "error: $$*" >&2; exit 1; }; \
	have=$$($(BIN)/python -c "import pip; $(VERSION)" 2>/dev/null) || have=; \
	if [ -n "$$have" ] && [ "$(origin PYTHON)" = file ]; then want=$$have; else \
		want=$$("$(PYTHON)" -c "$(VERSION)" 2>/dev/null) \
			|| fail "PYTHON=$(PYTHON) does not run; name a Python 3.10 or newer, as in: PYTHON=/usr/bin/python3.11 make setup"; \
	fi; \
	case $$want in [0-2].*|3.[0-9]) \
		fail "PYTHON=$(PYTHON) is Python $$want; mtadapt needs 3.10 or newer, as in: PYTHON=python3.11 make setup";; esac; \
	stamp="$(STAMP)"; \
	if [ "$$have" = "$$want" ] && [ "$$(cat $(VENV)/.stamp 2>/dev/null)" = "$$stamp" ]; then exit 0; fi; \
	start=$$(date +%s); \
	if [ "$$have" != "$$want" ]; then \
		base=$$("$(PYTHON)" -c "import sys; print(getattr(sys, '_base_executable', sys.executable))"); \
		"$$base" -c "import venv, ensurepip" 2>/dev/null \
			|| fail "Python $$want has no venv module; on Debian and Ubuntu install it with: apt-get install python$$want-venv"; \
		if [ -n "$$have" ]; then echo "setup: $(VENV) has Python $$have, replacing it by one with Python $$want"; \
		elif [ -e $(VENV) ]; then echo "setup: $(VENV) does not run or was never completed, making it anew"; fi; \
		rm -rf $(VENV); \
		"$$base" -m venv $(VENV); \
	fi; \
	echo "setup: installing into $(VENV) with Python $$want (the first time: about 2.5 GB to fetch, some minutes)"; \
	rm -f $(VENV)/.stamp; \
	for info in $(VENV)/lib/python*/site-packages/*.dist-info; do \
		if [ -d "$$info" ] && [ ! -e "$$info/INSTALLER" ]; then rm -rf "$$info"; fi; \
	done; \
	PIP_CONSTRAINT=$(CONSTRAINTS) PIP_BUILD_CONSTRAINT=$(CONSTRAINTS) \
		$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -e '.[$(EXTRAS)]'; \
	echo "$$stamp" > $(VENV)/.stamp; \
	echo "setup: done in $$(($$(date +%s) - start)) s"
