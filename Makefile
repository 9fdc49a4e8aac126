# `make` sets up .venv and runs the main job; `make test` runs the tests. Only what has to do with
# training needs PyTorch, in an environment of its own, .venv-train.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_TRAIN := .venv-train
BIN_TRAIN := $(VENV_TRAIN)/bin
# Reinstalled when what they depend on changes.
SETUP := $(VENV)/.ready
SETUP_TRAIN := $(VENV_TRAIN)/.ready
JOBS ?= 2

.PHONY: all setup setup-train tools test test-quick test-train test-all lint lint-train verilog regress area prove reproduce speakers bulk bulk-mac ieee layers dynamic train accuracy clean

all: $(SETUP) tools
	$(BIN)/python -m examples.main_job --jobs $(JOBS)

setup: $(SETUP)

setup-train: $(SETUP_TRAIN)

$(SETUP): EXTRAS := test,lint
$(SETUP): SIZE := some 300 MB of packages, a minute or two
$(SETUP_TRAIN): EXTRAS := test,lint,train
$(SETUP_TRAIN): SIZE := PyTorch from PyPI takes 5.5 GB on the disk and some four minutes

$(SETUP) $(SETUP_TRAIN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("fewbit needs Python 3.11 or newer, not %s; set PYTHON=python3.11." % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(@D): $(SIZE)."
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D) || { echo "Python's venv module is missing; on Debian, run 'apt-get install python3-venv'." >&2; exit 1; }
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# The simulators compile C++ at run time.
tools:
	@for tool in c++:g++ g++:g++ make:make perl:perl; do \
	  command -v $${tool%%:*} >/dev/null || { echo "Program $${tool%%:*} is missing; on Debian, run 'apt-get install $${tool##*:}'." >&2; exit 1; }; \
	done

test: $(SETUP) tools
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# What neither compiles nor runs long.
test-quick: $(SETUP) tools
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not long"

# What needs PyTorch: training, and what is compared with PyTorch.
test-train: $(SETUP_TRAIN) tools
	$(BIN_TRAIN)/python -m pytest -n $(JOBS) --dist worksteal -m torch

# Everything, long campaigns included.
test-all: test test-train prove bulk bulk-mac ieee speakers layers

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Types of what `make lint` can't read without PyTorch.
lint-train: $(SETUP_TRAIN)
	$(BIN_TRAIN)/pyright --project pyright_train.json

verilog: $(SETUP)
	$(BIN)/fewbit generate $$($(BIN)/python -c 'from fewbit.hdl.designs import DESIGNS; print(*DESIGNS)') --out build/verilog

regress: $(SETUP) tools
	$(BIN)/fewbit regress --jobs $(JOBS)

area: $(SETUP)
	$(BIN)/fewbit synth
	$(BIN)/fewbit synth --target ice40
	$(BIN)/fewbit synth --target ecp5

prove: $(SETUP)
	$(BIN)/fewbit prove

# The papers' claims beside what is measured here; some ten minutes.
reproduce: $(SETUP) tools
	$(BIN)/fewbit reproduce

# Long campaigns: all 370 test utterances, and ten million vectors, through the RTL.
speakers: $(SETUP) tools
	$(BIN)/python -m examples.japanese_vowels.rtl
	$(BIN)/python -m examples.japanese_vowels.rtl --activation gemmlowp
	$(BIN)/python -m examples.japanese_vowels.rtl --to floatsd8
	$(BIN)/python -m examples.japanese_vowels.rtl --to ternary
	$(BIN)/python -m examples.japanese_vowels.rtl --to ternary --scales powers_of_two
	$(BIN)/python -m examples.japanese_vowels.rtl --to binary
	$(BIN)/python -m examples.japanese_vowels.rtl --to binary --scales powers_of_two
	$(BIN)/python -m examples.japanese_vowels.rtl --to pow2
	$(BIN)/python -m examples.japanese_vowels.rtl --to pow2 --scales powers_of_two
	$(BIN)/python -m examples.japanese_vowels.floatsd8

bulk: $(SETUP) tools
	$(BIN)/python -m examples.bulk_check --count 10000000

# 10^8 operand sets through the FloatSD8 unit.
bulk-mac: $(SETUP) tools
	$(BIN)/python -m examples.bulk_check floatsd8_mac --count 100000000

# The FP32 unit against the C library's fmaf.
ieee: $(SETUP) tools
	$(BIN)/python -m examples.fp32_ieee

# Every variant of the layer with both activations against golden, and against LiteRT.
layers: $(SETUP) tools
	$(BIN)/python -m examples.layer_campaign
	RTL_MODELS=all $(BIN)/python -m pytest tests/test_rtl_models.py

# Precision chosen per step against other choices, whole test sets, in golden; cycles of its layer.
dynamic: $(SETUP) tools
	$(BIN)/python -m examples.dynamic_precision speaker
	$(BIN)/python -m examples.dynamic_precision speaker --no-offsets
	$(BIN)/python -m examples.dynamic_precision order
	$(BIN)/python -m examples.dynamic_precision order --no-offsets
	$(BIN)/python -m examples.dynamic_cycles

# Retrains the examples' models.
train: $(SETUP_TRAIN)
	$(BIN_TRAIN)/python -m examples.japanese_vowels.train
	$(BIN_TRAIN)/python -m examples.japanese_vowels.train_low_bit
	$(BIN_TRAIN)/python -m examples.temporal_order.train

# The papers' accuracy by our own training: some 14 hours of one core, in parts of BUDGET seconds;
# the same command goes on. DATA is the folder of all data, see docs/accuracy.md.
BUDGET ?= 3600
DATA ?= data
accuracy: $(SETUP_TRAIN)
	$(BIN_TRAIN)/python -m examples.accuracy_campaign --data $(DATA) --seconds $(BUDGET) --jobs $(JOBS)

clean:
	rm -rf build $(VENV) $(VENV_TRAIN) *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
