"""What `make gpu` runs, and the same with tiny sizes for a CPU.

A command is one of bash. {python} is this environment's, {vllm} that of the environment with vLLM, {out} the folder of
the results, {device} cuda or cpu, and {sizes} the piece's own options on a GPU or on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A command, its options on a GPU and on a CPU, and the programs and modules without which it is left out."""

    name: str
    command: str
    on_gpu: str = ""
    on_cpu: str = ""
    needs: tuple[str, ...] = ()


TESTS = "PYTHONPATH=tests {python} -m pytest --quiet --device {device} --dist worksteal {sizes} "
CONTRACT = TESTS + "--matrix {out}/NAME.matrix.json tests/contract/test_contract.py"
SERVING_TESTS = (
    "TRITON_F32_DEFAULT=ieee {vllm} -m pytest --quiet --confcutdir tests/serving --override-ini filterwarnings=default "
    "tests/serving/vllm/families/test_families.py -k {sizes}"
)
SERVED, TOGETHER = '"llava-clip or qwen2_5_vl or qwen3_vl"', '"test_one_by_one_and_together and llava-clip"'
BENCH = "{python} -m tokenprune bench {sizes} --output {out}/NAME.json"
SEVERAL = "--strategy random fopru:mode=rank mosaic visionzip vflowopt fastv"
SEVEN = "--shape llava-1.5-7b --dtype bfloat16"
SMALL = "--shape llava-1.5-0.5b --rounds 1 --strategy random --keep-ratio 0.1"
#: Starts a server, waits for it, and measures it.
SERVER = r"""
{sizes}
{vllm} -m tokenprune.evals.dev.experiments.serving.model {out}/served --no-weights $SHAPE || exit
{vllm} -m tokenprune serve --model {out}/served --strategy STRATEGY --load-format dummy --max-model-len 2048 \
    --trust-request-mm-kwargs --port 8017 $OPTIONS &
until {python} -c "import urllib.request as r; r.urlopen('http://localhost:8017/health')" 2>/dev/null; do
    kill -0 $! || exit; sleep 2
done
{vllm} -m tokenprune.evals.dev.experiments.serving http://localhost:8017 --model {out}/served --rounds 2 \
    --clients $CLIENTS --output {out}/NAME.json
"""
LARGE = 'SHAPE="--width 4096 --layers 32 --tower-width 1024 --tower-layers 24" OPTIONS="--dtype bfloat16"'
TINY = 'SHAPE="--width 128 --layers 2 --tower-width 128 --tower-layers 2" OPTIONS="--dtype float32 --enforce-eager"'


def contract(name: str, on_gpu: str, on_cpu: str) -> Piece:
    return Piece(name, CONTRACT.replace("NAME", name), f'-n 8 -k "{on_gpu}"', f'-n 0 -k "{on_cpu}"')


def bench(name: str, on_gpu: str, on_cpu: str = "", needs: tuple[str, ...] = ()) -> Piece:
    return Piece(name, BENCH.replace("NAME", name), f"--rounds 10 {on_gpu}", f"{SMALL} {on_cpu}", needs)


def answers(engine: str, ids: str) -> Piece:
    """Those of the bundled model."""
    python, option = ("{vllm}", "--engine vllm") if engine == "vllm" else ("{python}", "")
    command = (
        f"{python} -m tokenprune eval --strategy fopru:layer=-2 mosaic --keep-ratio 0.25 --baselines unpruned "
        f"--position-ids {ids} {option} {{sizes}} --output {{out}}/answers-{engine}-{ids}"
    )
    eager = "--engine-options '{\"enforce_eager\": true}'" if option else ""
    return Piece(f"answers-{engine}-{ids}", command, "--limit 300", f"--limit 2 {eager}")


def rates(name: str, strategy: str) -> Piece:
    """Requests per second, pruned and not, of random weights in the shape of LLaVA-1.5-7B."""
    command = SERVER.replace("STRATEGY", strategy).replace("NAME", name)
    return Piece(name, command, f'{LARGE} CLIENTS="1 16 64"', f'{TINY} CLIENTS="1 2"')


PIECES = [
    contract("contract-llava", "test_dropping_equals_masking and llava", "test_dropping and llava-clip and fopru-"),
    contract(
        "contract-families", "test_dropping_equals_masking and not llava", "test_dropping and qwen2.5-vl and fopru-"
    ),
    contract("contract-others", "not test_dropping_equals_masking", "test_plain_forward and llava-clip and random"),
    Piece(
        "kernels",
        TESTS + 'tests/engine/modes/test_attention.py -k "kernels or eager_answers or half_precision"',
        "-n 8",
        "-n 0",
    ),
    Piece("compiled", TESTS + "tests/engine/modes/test_compile.py", "-n 8", "-n 0 -k whole"),
    Piece("offloaded", "PYTHONPATH=tests {python} -m pytest --quiet tests/engine/modes/test_caches.py -k offloaded"),
    bench("bench-7b", f"{SEVEN} {SEVERAL} --keep-ratio 0.5 0.25 0.1"),
    bench("bench-7b-batch-8", f"{SEVEN} --batch 8 --strategy random mosaic fastv"),
    bench("bench-7b-flash", f"{SEVEN} --attention flash_attention_2 {SEVERAL}", needs=("flash_attn",)),
    bench(
        "bench-onevision-7b",
        "--shape llava-onevision-7b --dtype bfloat16 --strategy fopru:mode=rank vflowopt --keep-ratio 0.5 0.25 0.1",
    ),
    bench(
        "throughput-7b",
        f"{SEVEN} --batch 1 8 32 --throughput --memory 70 --strategy random mosaic",
        "--throughput --new-tokens 2",
    ),
    *(answers(engine, ids) for engine in ("transformers", "vllm") for ids in ("original", "compact")),
    Piece("answers", "{python} -m tokenprune report {out}/answers-*-original {out}/answers-*-compact"),
    Piece("vllm-eager", SERVING_TESTS, SERVED, TOGETHER),
    Piece("vllm-graphs", "CUDA_GRAPHS=1 " + SERVING_TESTS, SERVED, TOGETHER),
    *(rates(f"rates-{strategy.partition(':')[0]}", strategy) for strategy in ("grid", "mosaic", "fopru:layer=-2")),
    Piece(
        "adapt",
        "{python} -m tokenprune adapt --strategy mosaic {sizes} --output {out}/adapted",
        "--steps 200",
        "--steps 1 --batch 1 --per-image 1 --limit 2",
    ),
    Piece(
        "train",
        "make training/version_1/model/model.safetensors &&"
        "{python} -m tokenprune.evals.dev.train --device {device} --output {out}/training {sizes}",
        "--minutes 7",
        "--minutes 3 --warm-batches 1 --warm-steps 1 --patch-steps 1 --steps 1 --tokens 1024 --pool 2",
        needs=("npm", "apt-get"),
    ),
]
