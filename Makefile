# make demo       from nothing to answer.csv on the embedded sample: installs, runs every notebook, prints the score
# make detectors  an experiment on the sample: SSD, RetinaNet, YOLOX and TOOD with one thing changed at a time
# make keypoints  experiments on the sample: heat maps, top-down and one-stage pose, from labels to errors in pixels
# make test       installs if needed, lints, checks types, runs every test but the long ones
# make test-all   the long tests too: all notebooks on stand-ins for Colab, traced, on other data; half an hour and more
.PHONY: demo detectors keypoints test test-all faults bench install install-colab home notebooks starter clean

# The first Python that runs and is 3.11, 3.12 or 3.13; or say which: make PYTHON=/path/to/python demo
KNOWN := import sys; print((3, 11) <= sys.version_info < (3, 14) or "")
PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3.13 python3,\
	$(if $(shell $(name) -c '$(KNOWN)' 2>/dev/null),$(name))))
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet

demo: $(VENV)/installed
	$(RUN) -m livestock run --profile demo --workspace data
	cp data/answer.csv answer.csv

detectors: $(VENV)/installed
	$(PIP) --constraint constraints.txt --editable ".[run,yolox,keypoints]"
	$(RUN) -m livestock run --profile demo --workspace data --only 09_detectors

keypoints: $(VENV)/installed
	$(PIP) --constraint constraints.txt --editable ".[run,keypoints]"
	$(RUN) -m livestock run --profile demo --competition keypoints.yaml --workspace data/keypoints --only 10_heatmap --only 11_pose --only 12_yolo_pose

test: MARKED := not long
test-all: MARKED :=
test-all: SLOWEST := -o faulthandler_timeout=7200
test test-all: $(VENV)/installed-dev
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(RUN) -m pytest -m "$(MARKED)" $(SLOWEST)

# Kills runs, damages files, measures memory: some minutes; `make faults FAULTS=` does it for an hour and more.
FAULTS := --short
faults: $(VENV)/installed-dev
	$(RUN) bench/faults.py $(FAULTS)

# Times everything that claims to be fast, and writes the README's table; `make bench BENCH="read loader"` does some.
BENCH :=
bench: $(VENV)/installed-dev
	$(RUN) bench/all.py $(BENCH)

# The committed notebooks, answer.csv, hyp/evolved.yaml and hyp/inference.yaml are what the last demo run wrote; only what
# 09_detectors shows is of real images: livestock run --profile cpu --only 09_detectors --data PATH --publish, three hours.
notebooks: $(VENV)/installed
	$(RUN) -m livestock run --profile demo --workspace data --publish
	$(RUN) -m livestock run --profile demo --competition keypoints.yaml --workspace data/keypoints --only 10_heatmap --only 11_pose --only 12_yolo_pose --publish
	cp data/answer.csv answer.csv
	cp data/evolved.yaml data/inference.yaml hyp/

# Trains the starter checkpoint from scratch on other seeds of the sample (about an hour on 2 cores).
starter: $(VENV)/installed
	$(RUN) bench/starter.py

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-nodeps.txt constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; say which with: make PYTHON=/path/to/python demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing (torch is some 3 GB with its CUDA libraries; minutes, once)"
	$(PIP) --constraint constraints.txt --editable ".[run]"
	$(PIP) --no-deps --requirement requirements-nodeps.txt
	touch $(VENV)/installed

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --constraint constraints.txt --editable ".[run,dev]"
	touch $(VENV)/installed-dev

# Into the Python that runs, without a virtual environment. What is there already, Colab's kernel and Google's packages
# need as it is: its versions are the constraints, so that pip adds releases that fit them and changes none of them.
COLAB_PIP := python3 -m pip --disable-pip-version-check
install-colab:
	@held=$$(mktemp) && trap 'rm -f "$$held"' EXIT && $(COLAB_PIP) list --format=freeze >"$$held" && \
	$(COLAB_PIP) install --quiet --constraint "$$held" --requirement requirements.txt && \
	$(COLAB_PIP) install --quiet --no-deps --constraint "$$held" --requirement requirements-nodeps.txt || \
	{ echo "not installed: see pip's lines above; what was there before is as it was" >&2; exit 1; }

# Where the project lies on GitHub, for badges and Colab: make home REPOSITORY=owner/name; empty for none.
home: $(VENV)/installed
	@$(if $(filter undefined,$(origin REPOSITORY)),$(error say which: make home REPOSITORY=owner/name, or REPOSITORY= for none))
	@$(RUN) -m livestock.cli.home "$$REPOSITORY"

clean:
	rm -rf $(VENV) data/interim data/yolo data/runs data/raw data/weights data/formats data/*.safetensors data/*.json data/*.csv data/*.yaml
