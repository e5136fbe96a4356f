# `make` builds everything from nothing; `make help` lists the rest.

PYTHON ?= python3
PORT ?= 8000
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/src
export DVC_NO_ANALYTICS := 1
REPORT := $(CURDIR)/reports/index.html

# Stages of one thread, on next to nothing, spend their time on starting: two at a time, where neither needs the other.
IN_SMOKE := cd .smoke && PYTHONPATH=src dvc --wait-for-lock repro
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=2
comma := ,

PYTEST := OMP_NUM_THREADS=1 python -m pytest

.DEFAULT_GOAL := repro
.PHONY: help repro graph venv test test-builds test-rest test-quick lint bench bench-peers smoke sample study experiments verify verify-quality serve notebooks exercise solution known-failures clean

repro: venv  ## build everything: data, models, samples, metrics, figures, report
	python -m diffusion_ladder.forecast
	dvc repro
	python -m diffusion_ladder.report.model_cards
	python -m diffusion_ladder.report.run_page
	@echo "The report: $(REPORT)"

venv: .venv/installed  ## the virtual environment .venv, from the lock requirements.txt

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (make PYTHON=...), not " + sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

test: venv lint  ## every test, and the linters
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-builds test-rest

test-builds test-rest:
	$(PYTEST) -p no:cacheprovider -m "$(if $(filter test-rest,$@),not )builds" $(if $(CI),--ignore=tests/test_adding_a_rung.py)

test-quick: venv  ## the tests that take seconds
	$(PYTEST) --numprocesses=2 --dist=loadfile -m "not slow and not browser and not builds"

lint: venv  ## ruff (lint and format) and mypy
	ruff check .
	ruff format --check .
	mypy

bench: venv  ## the benchmarks, each beside its peer; writes benchmarks/results/ and benchmarks/README.md
	python benchmarks/training.py
	python benchmarks/profiles.py
	python benchmarks/digits.py
	python benchmarks/streaming.py
	python benchmarks/growth.py
	python benchmarks/full_size.py
	python benchmarks/sampling.py
	python benchmarks/page.py

bench-peers: venv  ## digits trained for equal seconds by peers' recipes: about an hour
	python -m pip install --quiet --no-deps --upgrade --target benchmarks/.packages --requirement benchmarks/requirements.txt
	python benchmarks/peers.py

graph: venv  ## write into dvc.yaml which code each stage depends on, and which rungs there are
	python -m diffusion_ladder.graph

smoke: venv  ## the whole graph on next to nothing, in a scratch copy
	rm -rf .smoke
	python -m diffusion_ladder.presets smoke --copy .smoke
	$(IN_SMOKE) preprocess
	$(SIDE_BY_SIDE) smoke-train smoke-train_classifier,render_data,compare_schedulers
	$(SIDE_BY_SIDE) smoke-sample smoke-sweep
	$(SIDE_BY_SIDE) 'smoke-evaluate@m*,render@m*,ideal_denoiser' 'smoke-evaluate@[!m]*,render@[!m]*,compare_scores,play'
	$(IN_SMOKE)
	@echo "The report of the smoke run: $(CURDIR)/.smoke/reports/index.html"

smoke-%:  # -s: those before it are there, and DVC would lock what they have written
	$(IN_SMOKE) -s --glob $(foreach stages,$(subst $(comma), ,$*),'$(stages)')

sample: venv  ## draw from a trained rung: make sample RUNG=faces CLASS=female N=16 SEED=3 (SAMPLER= STEPS= GUIDANCE=)
	python -m diffusion_ladder.sample $(RUNG) $(if $(CLASS),--class "$(CLASS)") $(if $(N),--count $(N)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(SAMPLER),--sampler $(SAMPLER)) $(if $(STEPS),--steps $(STEPS)) \
	  $(if $(GUIDANCE),--guidance-scale $(GUIDANCE))

experiments: venv  ## what was tried: changed parameters and quality, the newest first
	@python -m diffusion_ladder.study.experiments

study: venv  ## ask a question of studies/, such as NAME=schedules; goes on where it was stopped
	python -m diffusion_ladder.study $(NAME)

verify: venv  ## hash every output again and compare with dvc.lock
	python -m diffusion_ladder.verify

verify-quality: venv  ## hold every rung's metrics against the thresholds in params.yaml
	python -m diffusion_ladder.quality

serve: venv  ## show the report on http://localhost:8000 (PORT=8000)
	python -m http.server --bind localhost --directory reports $(PORT)

notebooks: venv  ## execute the reading companions in notebooks/ on the artifacts at hand
	python -m diffusion_ladder.notebooks

exercise: venv  ## check your answers in exercises/, all or one (N=4), and say in words what is wrong
	@python -m diffusion_ladder.exercises $(N)

solution: venv  ## show the project's own function for an exercise (N=4)
	@python -m diffusion_ladder.exercises $(N) --solution

known-failures: venv  ## run the ten known failures and their mends; writes docs/known-failures.md
	python -m diffusion_ladder.known_failures --write

clean:  ## remove the virtual environment and scratch copies; data, models and reports stay
	rm -rf .venv .smoke .mypy_cache .pytest_cache .ruff_cache .hypothesis

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
