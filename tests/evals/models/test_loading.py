"""Loading a model: its files, its cache, and its tensors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.files.evals import saved
from helpers.tiny import tiny_llava
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, QuantizedCache, QuantoConfig, cache_utils

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.models import loading
from tokenprune.evals.models.cache import cache_bytes, cache_in
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.models.tensors import stored_bytes
from tokenprune.evals.storage.provenance import model_identity, weights_digest


def test_no_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenprune.evals.models.loading.MODEL", tmp_path)
    with pytest.raises(DataError, match="write --model, or pip install -e a clone"):
        load_model(str(tmp_path))


def test_a_model_with_code_of_its_own(tmp_path: Path) -> None:
    """There is no prompt whether to run the code: in a script, nobody would answer."""
    code = {"model_type": "my_vlm", "auto_map": {"AutoConfig": "modeling.MyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "modeling.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(DataError, match=r"needs trust_remote_code, and commands run no code of a model\. Name"):
        load_model(str(tmp_path))


def test_the_authors_format_of_a_type_that_transformers_has(tmp_path: Path) -> None:
    """transformers would ignore the parts of the config that describe the language model and the tower."""
    assert FAMILIES["ovis2.5"].class_name  # skips the test if transformers lacks it
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ovis2_5", "architectures": ["Ovis2_5"]}))
    with pytest.raises(DataError, match=r"the format of Ovis2_5, .* such as ovis-community/Ovis2\.5-2B"):
        load_model(str(tmp_path))


def test_an_unknown_dtype_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(SettingError, match=r"unknown dtype 'bf16'\. Did you mean 'bfloat16'\?"):
        load_model("no/such-model", "bf16")


@pytest.mark.parametrize(
    ("stored", "fast", "loaded", "said"),
    [
        (torch.bfloat16, False, torch.float32, "/model: loaded in float32, because bfloat16 is 5 to 200 times slower"),
        (torch.bfloat16, True, torch.bfloat16, ""),
        (torch.float16, True, torch.float32, ""),
    ],
)
def test_auto_avoids_what_the_cpu_is_slow_in(
    stored: Any, fast: bool, loaded: Any, said: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tiny_llava().to(stored), tmp_path / "model")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(loading, "has_bfloat16", lambda: fast)
    assert load_model(path, "auto", "cpu")[0].dtype == loaded
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_a_slow_dtype_is_obeyed_with_a_warning(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tiny_llava(), tmp_path / "model")
    capsys.readouterr()
    monkeypatch.setattr(loading, "has_bfloat16", lambda: False)
    assert load_model(path, "bfloat16", "cpu")[0].dtype == torch.bfloat16
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: bfloat16 is 5 to 200 times slower than float32 on this CPU")
    assert line.endswith("Write --dtype float32.")
    load_model(path, "float32", "cpu")
    assert not capsys.readouterr().err


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make loading return a model that is half in float16, and refuses `float()` like quantised models of
    transformers."""
    model = tiny_llava().half()
    model.is_quantized = True
    model.float = None
    monkeypatch.setattr(loading, "load_processor", lambda name: (model.config, None))
    loaded = (model, {"missing_keys": set()})
    monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", lambda *_, **options: loaded)
    return model


def test_a_quantised_model_keeps_its_dtype(quantised: Any) -> None:
    for dtype in ("auto", "float16"):
        assert load_model("x", dtype, "cpu")[0].dtype == torch.float16


def test_a_dtype_that_a_quantised_model_cannot_have(quantised: Any) -> None:
    with pytest.raises(SettingError, match=r"stay in float16 when it is loaded in float32\. Write --dtype float16\."):
        load_model("x", "float32", "cpu")


def test_a_package_that_a_model_needs_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example SmolVLM's processor, and the towers of Gemma 3n, need another package."""

    def needs(*_: Any, **__: Any) -> None:
        raise ImportError("\nSmolVLM requires the num2words library.\nTo install it, type `pip install num2words`.\n")

    path = saved(tiny_llava(), tmp_path / "model")
    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", needs)
    with pytest.raises(SettingError, match=r"model: SmolVLM requires the num2words library\. To install it, type `pip"):
        load_model(path)


def test_weights_under_other_names(tmp_path: Path) -> None:
    """LLaVA in its authors' format has the same type but another class: transformers would use random weights."""
    path = Path(saved(tiny_llava(), tmp_path / "model"))
    file = path / "model.safetensors"
    stored = {name.replace("multi_modal", "mm"): weight for name, weight in load_file(file).items()}
    save_file(stored, file, {"format": "pt"})
    load_model(str(path))  # config.json names the model's own class, so transformers warns about missing weights
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["LlavaLlamaForCausalLM"]}))
    missing = r"4 weights of a LlavaForConditionalGeneration are not in it, such as model\.multi_modal_projector\."
    with pytest.raises(DataError, match=rf"{missing}.+ in another format \(LlavaLlamaForCausalLM\)"):
        load_model(str(path))


# The size of a KV cache.


STATES = torch.randn(1, 2, 32, 16, generator=torch.Generator().manual_seed(0))  # 1024 numbers
BACKENDS: list[Any] = [
    # half a byte for each of 1024 numbers, and scale and shift in float32 for each of 64 groups
    ("quanto", {"nbits": 4, "q_group_size": 16}, 512 + 2 * 64 * 4),
    # a byte for each number, and one scale in float32
    *([("fp8", {}, 1024 + 4)] if hasattr(cache_utils, "Fp8QuantizedLayer") else []),
]


def filled(cache: Any) -> dict[str, Any]:
    for layer in range(2):
        cache.update(STATES, STATES, layer)
    return {"past_key_values": cache}


def test_keys_and_values() -> None:
    assert cache_bytes(filled(DynamicCache())) == 2 * 2 * 1024 * 4


@pytest.mark.usefixtures("quanto_in_python")
@pytest.mark.parametrize(("backend", "settings", "expected"), BACKENDS)
def test_quantised_states_and_their_scales(backend: str, settings: dict[str, Any], expected: int) -> None:
    """Tokens that are not yet quantised are counted too: with quanto, a later token takes a float32 number per
    channel."""
    cache = QuantizedCache(backend, LlamaConfig(num_hidden_layers=2), **settings)
    assert cache_bytes(filled(cache)) == 2 * 2 * expected
    later = STATES[:, :, :1]
    cache.update(later, later, 0)
    assert cache_bytes({"past_key_values": cache}) == 2 * 2 * expected + 2 * (32 if backend == "fp8" else 32 * 4)


@pytest.mark.parametrize("name", ["qwen3.5", "lfm2-vl", "hy-v4-vl", "unlimited-ocr"])
def test_what_other_layers_hold(name: str) -> None:
    """States of linear attention and short convolutions, an indexer's keys, and a model's own cache class."""
    family = FAMILIES[name]
    model, sizes = family.build(), []
    for images in ([1], [2]):
        asked = family.prompt(images)
        output = model.generate(**asked, max_new_tokens=1, return_dict_in_generate=True)
        held = [one for layer in cache_in(output)[1].layers for one in vars(layer).values()]
        parts = [part for one in held for part in (one.values() if isinstance(one, dict) else [one])]
        sizes.append(cache_bytes(output))
        assert sizes[-1] == sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    assert 0 < sizes[0] < sizes[1]


# Weights that consist of several tensors, as in torchao and quanto.


class Scaled(Tensor):
    """Integers with their scale. It has hardly any operators, like torchao's, which have no `view`, for example."""

    integers: Tensor
    scale: Tensor

    def __new__(cls, integers: Tensor, scale: Tensor) -> "Scaled":
        made: Any = torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype)
        made.integers, made.scale = integers, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["integers", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.detach.default:
            raise NotImplementedError(func)
        return cls(args[0].integers, args[0].scale)


def packed(integers: int, scale: float) -> nn.Linear:
    model = nn.Linear(16, 8, bias=False)
    weight = Scaled(torch.full((8, 16), integers, dtype=torch.int8), torch.full((8,), scale))
    model.weight = nn.Parameter(weight, requires_grad=False)
    return model


def test_integers_and_scales_are_counted() -> None:
    assert stored_bytes(torch.randn(8, 16)) == 8 * 16 * 4
    assert stored_bytes(packed(3, 0.5).weight) == 8 * 16 + 8 * 4


def test_a_digest_is_of_integers_and_scales() -> None:
    assert weights_digest(packed(3, 0.5)) == weights_digest(packed(3, 0.5))
    different = {weights_digest(packed(integers, scale)) for integers, scale in [(3, 0.5), (3, 0.25), (2, 0.5)]}
    assert len(different) == 3


def test_an_identity_says_how_a_model_is_quantised() -> None:
    """Weights alone do not show whether activations are quantised too."""
    model = tiny_llava()
    plain = model_identity(model)
    model.config.quantization_config = QuantoConfig(weights="int8")
    found = json.loads(json.dumps(model_identity(model)))
    assert found.pop("quantised")["weights"] == "int8"
    assert found == plain
