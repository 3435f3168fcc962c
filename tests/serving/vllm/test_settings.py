"""Settings of a pruned engine, read without vLLM."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from transformers.processing_utils import ImagesKwargs, TextKwargs

from tokenprune import STRATEGIES, Compose, DivPrune, FoPru, PixelPrune
from tokenprune.errors import SettingError
from tokenprune.serving.vllm.settings import Budget, Settings, split_request


def test_strategy_and_own_settings() -> None:
    settings = Settings.read({"strategy": "fopru:layer=-2", "keep_ratio": 0.5, "position_ids": "compact"})
    assert settings == Settings(FoPru(keep_ratio=0.5, layer=-2), "compact")
    assert Settings.read({"strategy": "fopru"}).strategy == FoPru(keep_ratio=0.25)


def test_a_settings_file_that_tune_could_not_prove(tmp_path: Path) -> None:
    path = tmp_path / "unproven.json"
    path.write_text('{"strategy": "fopru", "settings": {"keep_ratio": 0.5}, "search": {"promised": false}}')
    for strategy in (f"{path}", f"pixelprune+{path}"):
        with pytest.raises(SettingError, match=r"was not shown for these settings.*unproven\.json:unproven$"):
            Settings.read({"strategy": strategy})
    assert Settings.read({"strategy": f"{path}:unproven"}).strategy == FoPru(keep_ratio=0.5)
    assert Settings.read({"strategy": f"pixelprune+{path}:unproven"}).strategy.keep_ratio == 0.5


def test_position_ids_by_default() -> None:
    written = {"strategy": "downsample", "keep_ratio": 0.5}
    assert Settings.read(written).position_ids == "compact"
    assert Settings.read({**written, "position_ids": "original"}).position_ids == "original"
    assert Settings.read({"strategy": "downsample:keep_ratio=0.5+mosaic"}).position_ids == "original"


@pytest.mark.parametrize(
    ("architecture", "counts"),
    [("TokenPruneGlm5Next", True), ("TokenPruneGlmOcr", False), ("TokenPruneMiniMaxM3", False)],
)
def test_a_language_model_without_position_ids(architecture: str, counts: bool) -> None:
    """Code in vLLM that reads position IDs uses them as places in the KV cache."""
    config = SimpleNamespace(architectures=[architecture], tokenprune={"strategy": "fopru"})
    settings = Settings.of(config)
    assert settings.position_ids == ("compact" if counts else "original")
    assert settings.n_positions(100) == (100 if counts else 400)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "expected settings with a strategy, found None. Write"),
        ({"keep_ratio": 0.5}, "expected settings with a strategy"),
        ({"strategy": "fopro"}, "Did you mean 'fopru'"),
        ({"strategy": "fopru", "keep_rate": 0.5}, "Did you mean 'keep_ratio'"),
        ({"strategy": "fopru", "positions": "compact"}, "Did you mean 'position_ids'"),
        ({"strategy": "fopru", "keep_ratio": 0}, "keep_ratio=0 is not a fraction"),
        ({"strategy": "fopru", "keep_ratio": "half"}, "keep_ratio='half' is not of type"),
        ({"strategy": "fopru", "position_ids": "origin"}, "position_ids 'origin'"),
        ({"strategy": "fopru", "record": 1}, "record=1 is not a path"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_said(written: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Settings.read(written)


@pytest.mark.usefixtures("unchecked")
def test_keep_ratio_of_a_request() -> None:
    settings = Settings(FoPru(keep=10))
    assert settings.strategy_at(None) == FoPru(keep=10)
    assert settings.strategy_at(Budget(0.5)) == FoPru(keep_ratio=0.5)
    assert settings.strategy_at(Budget(keep=5)) == FoPru(keep=5)
    assert settings.strategy_at(Budget(1)) is None
    budgets = (None, Budget(0.5), Budget(1.0), Budget(keep=5), Budget(keep=50))
    assert [settings.budget(36, asked) for asked in budgets] == [10, 18, 36, 5, 36]
    for wrong in (0, 1.5, -1, "0.5", True, float("nan"), [0.5]):
        for name, modality in (("keep_ratio", "image"), ("video_keep_ratio", "video")):
            with pytest.raises(SettingError, match=r"^mm_processor_kwargs: keep_ratio=.* is not a fraction"):
                split_request({name: wrong}, modality)
    for wrong in (0, 0.5, -1, "5", True, [5]):
        with pytest.raises(SettingError, match=r"^mm_processor_kwargs: keep=.* is not a positive integer"):
            split_request({"keep": wrong})
        with pytest.raises(SettingError, match=r"^mm_processor_kwargs: keep_in_prompt=.* is not a positive integer"):
            settings.most_in_prompt({"keep_in_prompt": wrong})
    with pytest.raises(SettingError, match="keep_ratio and keep are both given"):
        split_request({"keep_ratio": 0.5, "keep": 5})


def test_the_most_tokens_of_a_prompt() -> None:
    """A request may lower the engine's limit, not raise it."""
    limited = Settings.read({"strategy": "grid", "keep_in_prompt": 100})
    requests: list[dict[str, object]] = [{}, {"keep_in_prompt": 50}, {"keep_in_prompt": 200}]
    assert [limited.most_in_prompt(request) for request in requests] == [100, 50, 100]
    assert [Settings(FoPru()).most_in_prompt(request) for request in requests] == [None, 50, 200]
    with pytest.raises(SettingError, match="keep_in_prompt=0 is not a positive integer"):
        Settings.read({"strategy": "grid", "keep_in_prompt": 0})


def test_an_engine_that_keeps_all_prunes_nothing() -> None:
    settings = Settings(FoPru(keep_ratio=1.0))
    assert settings.strategy_at(None) is None
    assert settings.strategy_at(Budget(0.5)) == FoPru(keep_ratio=0.5)


def test_an_engine_whose_last_step_keeps_what_the_others_leave() -> None:
    settings = Settings(Compose(DivPrune(keep_ratio=0.5), FoPru(keep_ratio=1.0)))
    assert [settings.budget(36, asked) for asked in (None, Budget(0.25), Budget(1.0))] == [18, 9, 36]


def test_digest_tells_engines_apart() -> None:
    engines = [
        Settings(FoPru(keep_ratio=0.25)),
        Settings(FoPru(keep_ratio=0.5)),
        Settings(FoPru(keep_ratio=0.25, layer=-2)),
        Settings(FoPru(keep_ratio=0.25), "compact"),
    ]
    assert len({engine.digest for engine in engines}) == 4
    assert Settings(FoPru(keep_ratio=0.25), record="a.jsonl").digest == engines[0].digest


def test_position_ids_that_an_engine_provides() -> None:
    assert Settings(FoPru(keep_ratio=0.1)).n_positions(100) == pytest.approx(1000, abs=1)
    assert Settings(FoPru(keep_ratio=0.9)).n_positions(100) == 400
    assert Settings(FoPru(keep=5)).n_positions(100) == 1600
    assert Settings(Compose(DivPrune(keep=5), FoPru(keep_ratio=0.25))).n_positions(100) == 1600
    assert Settings(FoPru(keep=5), "compact").n_positions(100) == 100


@pytest.mark.parametrize("position_ids", ["original", "compact"])
@pytest.mark.parametrize("strategy", [FoPru(keep_ratio=0.1), FoPru(keep_ratio=0.3), FoPru(keep=5), PixelPrune()])
@pytest.mark.parametrize("n_positions", [1000, 1001, 32768])
def test_the_longest_sequence_for_a_number_of_position_ids(strategy: Any, position_ids: Any, n_positions: int) -> None:
    settings = Settings(strategy, position_ids)
    longest = settings.max_model_len(n_positions)
    assert settings.n_positions(longest) <= n_positions < settings.n_positions(longest + 1)


def test_request_is_split() -> None:
    assert split_request({"keep_ratio": 0.5, "max_pixels": 9}) == (Budget(0.5), {"max_pixels": 9})
    assert split_request({"keep": 5, "keep_in_prompt": 9}) == (Budget(keep=5), {})
    assert split_request({"max_pixels": 9}) == (None, {"max_pixels": 9})
    for images in ({"keep": 5}, {"keep_ratio": 0.5}, {}):
        both = {**images, "video_keep_ratio": 0.1}
        assert split_request(both, "video") == (Budget(0.1), {})
        assert split_request(both, "image") == split_request(images, "video")


#: The processors of the models that are served.
PROCESSORS = (
    "CLIPImageProcessor",
    "SiglipImageProcessor",
    "LlavaNextImageProcessor",
    "LlavaOnevisionImageProcessor",
    "Qwen2VLImageProcessor",
    "Qwen3VLVideoProcessor",
    "GotOcr2ImageProcessor",
)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_what_a_processor_has_passes(processor: str) -> None:
    own = getattr(transformers, processor).valid_kwargs
    names = {name for kind in (own, ImagesKwargs, TextKwargs) for name in kind.__annotations__}
    assert {"do_resize", "size"} <= names
    for strategy in STRATEGIES.values():
        settings = Settings(strategy(keep_ratio=0.5))
        for request in (True, False):
            settings.check_options(dict.fromkeys([*names, "keep_aspect_ratio"]), request)
            settings.check_options({"images_kwargs": dict.fromkeys(names)}, request)
        settings.check_options({"keep_ratio": 0.5}, request=True)


NEAR = ("keepratio", "keepRatio", "keep-ratio", "keep_ratios", "keep_rate", "kept_ratio")


@pytest.mark.parametrize("name", NEAR)
def test_a_mistyped_keep_ratio_of_a_request(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name!r} does nothing. Did you mean 'keep_ratio'"):
        Settings(FoPru(keep_ratio=0.25)).check_options({"size": 9, name: 0.5}, request=True)
    with pytest.raises(SettingError, match="Did you mean 'video_keep_ratio'"):
        Settings(FoPru(keep_ratio=0.25)).check_options({"videos_keep_ratio": 0.5}, request=True)


@pytest.mark.parametrize("name", ["strategy", "Strategy", "position_ids", "positionIds", "record", "layer"])
def test_a_setting_of_the_engine_in_a_request(name: str) -> None:
    said = f"{name!r} does nothing, since '.*' is a setting of the whole engine. Leave it out; a request can only set"
    with pytest.raises(SettingError, match=said):
        Settings(FoPru(keep_ratio=0.25)).check_options({name: "fopru"}, request=True)


@pytest.mark.parametrize("name", ["threshold", "mode", "steps", "tokenprune"])
def test_a_setting_of_one_of_several_strategies_in_a_request(name: str) -> None:
    settings = Settings(Compose(PixelPrune(), FoPru(keep_ratio=0.25)))
    with pytest.raises(SettingError, match=f"{name!r} does nothing, since {name!r} is a setting of the whole engine"):
        settings.check_options({name: 0.1}, request=True)
    settings.check_options({"size": 9, "max_pixels": 9, "keep_ratio": 0.5}, request=True)


@pytest.mark.parametrize("options", ["keep_ratio=0.5", [("keep_ratio", 0.5)], 0.5])
def test_options_that_are_no_dict(options: Any) -> None:
    """A program may pass them; a server checks them itself."""
    with pytest.raises(SettingError, match=r"^mm_processor_kwargs: expected a dict such as .*, found"):
        Settings(FoPru(keep_ratio=0.25)).check_options(options, request=True)


@pytest.mark.parametrize("scope", ["text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs"])
@pytest.mark.parametrize("part", [5, None, "do_resize", [1]])
def test_options_of_a_modality_that_are_no_dict(scope: str, part: Any) -> None:
    """vLLM would answer with an internal error."""
    for request, where in ((True, "mm_processor_kwargs"), (False, "--mm-processor-kwargs")):
        with pytest.raises(SettingError, match=rf"^{where}: '{scope}': expected a dict such as .*, found"):
            Settings(FoPru(keep_ratio=0.25)).check_options({"size": 9, scope: part}, request)


def test_a_keep_ratio_within_another_option() -> None:
    with pytest.raises(SettingError, match=r"'images_kwargs\.keep_ratio' does nothing. Did you mean 'keep_ratio'"):
        Settings(FoPru(keep_ratio=0.25)).check_options({"images_kwargs": {"keep_ratio": 0.5}}, request=True)
