"""Models and strategies that cannot work inside vLLM are refused, with the reason and what to type instead, by
tokenprune's commands before it starts, or when the engine starts. Does not load vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.layouts.shrunk import WINDOWED
from tokenprune.adapters.towers import Tower
from tokenprune.errors import UnsupportedError, to_install
from tokenprune.serving.vllm.architectures import ARCHITECTURES, GENERIC
from tokenprune.serving.vllm.architectures.architecture import Architecture
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of, check_published
from tokenprune.serving.vllm.settings import COMPACT, WHOLE_VIDEOS, Settings
from tokenprune.serving.vllm.towers.from_config import config_with_tower, encoder_layer, tower_of_config
from tokenprune.strategies.compose import Compose
from tokenprune.strategy import ScoreStrategy, StagedStrategy, Strategy
from tokenprune.strategy.staged import valid_skips, valid_stages
from tokenprune.tokens.visual import STATISTICS, check_needs

#: Why vLLM cannot give a strategy what it needs.
NEVER = {
    "text_attention": "the attention of decoder layers, and vLLM has one KV length for all layers",
    "early_attention": "the attention of two encoder layers, and there the plug-in records one",
    "text_tower": "the question, and vLLM encodes an image without it, once for all questions",
    "kept_in_tower": "to prune between the layers of the vision tower, which are vLLM's own",
}
#: What only some models can do: the statistic, how `Architecture` calls it, and what a strategy needs to do.
BY_MODEL = (
    ("kept_before_tower", "drops_patches", "prune before the vision tower"),
    ("shrunk", "shrinks", "have smaller versions of images encoded"),
    ("frames", "joins_frames", "compare the frames of a video"),
)
#: Rotary embeddings whose frequencies do not depend on the length (dynamic ones: up to the end of their table, which
#: vLLM does not lengthen).
ROPE_TYPES = ("default", "dynamic", "linear", "llama3", "mrope", "proportional", "yarn")
#: Layers that attend to all remaining tokens, to the last of them, or to one of equally long chunks of them, or whose
#: state has seen them; layers without attention; and those of MiniMax M3, whose language model has its own type in
#: published configs: they attend to blocks of the KV cache, which vLLM counts by place.
SERVED_LAYERS = (
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "linear_attention",
    "conv",
    "mlp",
    "minimax_m3_sparse",
)
#: Those that attend to a part of what comes before.
WINDOWS = ("sliding_attention", "chunked_attention")
#: Layers of some language models only, by their type.
OWN_LAYERS = {kind: layers for record in ARCHITECTURES.values() for kind, layers in record.own_layers.items()}
#: What to do if vLLM is not installed.
NOT_INSTALLED = (
    f"vLLM is not installed. For GPUs, type: {to_install('vllm')}; for CPUs, see tokenprune/serving/README.md"
)
#: What works with every model, even one without a vision tower.
READS_FEATURES = "Use a strategy that reads only the features of visual tokens, such as DivPrune."
OTHER = "Use a strategy that selects after the vision tower, such as FoPru, VisionZip or DivPrune."


def check_model(architecture: Architecture, model_config: Any) -> None:
    """Raise SettingError or UnsupportedError for settings that are invalid or do not fit the model."""
    settings = Settings.of(model_config.hf_config)
    strategy = settings.strategy
    settings.check_options(model_config.multimodal_config.mm_processor_kwargs or {}, request=False)
    check_published(model_config.hf_config.to_dict())
    check_config(architecture, model_config.hf_config, settings)
    reason = needs_image(architecture, strategy)
    if reason is not None and model_config.multimodal_config.enable_mm_embeds:
        other = "" if architecture.needs_pixels else ", or use a strategy that does not, such as DivPrune"
        raise UnsupportedError(
            f"{reason}, but --enable-mm-embeds takes images that were encoded elsewhere. Leave it out{other}."
        )


def needs_image(architecture: Architecture, strategy: Strategy) -> str | None:
    """Why images that were encoded elsewhere cannot be pruned; None if they can be."""
    if architecture.needs_pixels:
        return f"{architecture.name} reads from the pixels where in the image a visual token is"
    if strategy.needs:
        return f"{type(strategy).__name__} reads what the vision tower does with an image"
    return None


def check_config(architecture: Architecture, config: Any, settings: Settings) -> None:
    """Raise UnsupportedError for settings that do not fit a model with this config."""
    strategy = settings.strategy
    check_architecture(architecture, config)
    check_videos(architecture, settings)
    check_strategy(strategy, config.get_text_config().num_hidden_layers, architecture.name)
    seeing, offers = config_with_tower(config), {"pixels"}
    if not architecture.towerless:
        if getattr(seeing, "vision_config", None) is None:  # as in some Gemma 4
            raise UnsupportedError(
                "config.json has no vision_config: this checkpoint has no vision tower, and sees no images. Serve it "
                "with `vllm serve`."
            )
        tower = tower_of_config(seeing)
        check_patches(seeing, tower)
        offers |= {"vision_attention", *({"cls"} if tower.n_prefix else ())}
        offers |= set() if architecture.padded else {"colors"}
    offers |= {need for need, _, _ in BY_MODEL} & strategy.needs  # else refused by check_strategy
    model = f"{architecture.name} inside vLLM"
    required = strategy.required_statistics - {"grid"}
    check_needs(repr(strategy), required, frozenset(offers), model, instead=READS_FEATURES)
    if "vision_attention" in strategy.needs and architecture.name != GENERIC:
        encoder_layer(seeing, strategy.attention_layer)
    elif "vision_attention" in strategy.needs and tower_of_config(seeing).heads is not None:
        raise UnsupportedError(
            f"vLLM's Transformers backend, which serves this model, does not show the attention of a "
            f"{seeing.vision_config.model_type} tower. {READS_FEATURES}"
        )
    check_decoder(config.get_text_config(), settings)


def check_videos(architecture: Architecture, settings: Settings) -> None:
    """Raise UnsupportedError for frames that are pruned together where they cannot be."""
    if settings.whole_videos and not architecture.joins_frames:
        raise UnsupportedError(
            f"{architecture.name} does not prune the frames of a video together. Leave {WHOLE_VIDEOS} out."
        )
    if settings.joins_frames and (settings.by_pixels or settings.shrinks):
        raise UnsupportedError(
            f"{settings.strategy!r} cannot run inside vLLM on whole videos: there, what prunes before the vision tower "
            f"or shrinks images has a budget per frame. {OTHER}"
        )


def check_patches(config: Any, tower: Tower) -> None:
    """Raise UnsupportedError for a model that treats a CLS token as a visual one, or a patch as the CLS token, and for
    an InternVL that orders visual tokens by column."""
    if getattr(config, "ps_version", "v2") != "v2":
        raise UnsupportedError(
            f'ps_version={config.ps_version!r}: only "v2" puts the visual tokens of a tile in rows. Serve the model '
            f"without pruning."
        )
    given, fitting = getattr(config, "vision_feature_select_strategy", None), "default" if tower.n_prefix else "full"
    if given not in (None, fitting):
        raise UnsupportedError(
            f"vision_feature_select_strategy={given!r} with a {config.vision_config.model_type} tower does not give "
            f'one visual token per patch. Write "vision_feature_select_strategy": "{fitting}" in --hf-overrides if '
            f"the model was trained that way; else serve it without pruning."
        )


def check_decoder(text_config: Any, settings: Settings) -> None:
    """Raise UnsupportedError for a language model that would miss pruned tokens."""
    own = OWN_LAYERS.get(getattr(text_config, "model_type", ""), ())
    for kind in layer_kinds(text_config):
        if settings.shrinks and kind in WINDOWS:
            raise UnsupportedError(f"{settings.strategy!r} cannot run with this model: {WINDOWED}. {OTHER}")
        if kind not in (*SERVED_LAYERS, *own):
            raise UnsupportedError(
                f"the language model has {kind!r} layers, which depend on tokens that pruning drops. Serve it without "
                f"pruning."
            )
    for rope in rope_types(text_config):
        if settings.position_ids == "original" and rope not in ROPE_TYPES:
            raise UnsupportedError(
                f"the language model's rotary embedding is of type {rope!r}: its frequencies depend on the length, and "
                f"vLLM does not count the tokens that are pruned. Write {COMPACT}."
            )


def layer_kinds(text_config: Any) -> list[str]:
    """The kind of every decoder layer, as in `layer_types` of transformers."""
    kinds = getattr(text_config, "layer_types", None)
    if kinds is not None:
        return list(kinds)
    slides = getattr(text_config, "sliding_window", None) is not None
    slides = slides and getattr(text_config, "use_sliding_window", True)
    return ["sliding_attention" if slides else "full_attention"] * text_config.num_hidden_layers


def rope_types(text_config: Any) -> list[str]:
    """The types of the rotary embeddings; each kind of layer may have its own."""
    parameters = getattr(text_config, "rope_parameters", None) or getattr(text_config, "rope_scaling", None) or {}
    by_kind = [part for part in parameters.values() if isinstance(part, Mapping)]
    return [part.get("rope_type", "default") for part in by_kind or [parameters]]


def check_architecture(architecture: Architecture, config: Any) -> None:
    """Raise UnsupportedError for a checkpoint of another family or format, or one whose tower vLLM does not have."""
    written = config.to_dict()
    # The class that vLLM uses for Mistral's own format has no type.
    fitting = architecture_of({**written, "model_type": written["model_type"] or config.model_type})
    if fitting == architecture.name or (architecture.name == GENERIC and architecture.model_type == config.model_type):
        if architecture.misfit is not None and (reason := architecture.misfit(config)) is not None:
            raise UnsupportedError(reason)
        return
    tower = getattr(getattr(config_with_tower(config), "vision_config", None), "model_type", None)
    seen = f" with a {tower} tower" if tower else ""
    raise UnsupportedError(
        f"{architecture.name} does not serve a model of type {config.model_type!r}{seen}. Write "
        f'"architectures": ["{fitting}"].'
    )


def check_strategy(strategy: Strategy, n_layers: int, architecture: str) -> None:
    """Raise UnsupportedError for a strategy that prunes inside the language model or the vision tower, or before a
    tower that cannot skip patches, or that reads more than the image."""
    name = type(strategy).__name__
    other = READS_FEATURES if ARCHITECTURES[architecture].towerless else OTHER
    for need, flag, what in BY_MODEL:
        if need in strategy.needs and not getattr(ARCHITECTURES[architecture], flag):
            others = [
                record.name.removeprefix("TokenPrune") for record in ARCHITECTURES.values() if getattr(record, flag)
            ]
            raise UnsupportedError(
                f"{name} cannot run inside vLLM with {architecture}: it needs to {what}, which only these can: "
                f"{', '.join(others)}. {other}"
            )
    if strategy.reads_grid and ARCHITECTURES[architecture].gridless:
        raise UnsupportedError(f"{name} cannot run inside vLLM with {architecture}: it needs {STATISTICS['grid']}.")
    for need in sorted(strategy.needs & NEVER.keys()):
        raise UnsupportedError(f"{name} cannot run inside vLLM: it needs {NEVER[need]}. {other}")
    for step in strategy.steps if isinstance(strategy, Compose) else (strategy,):
        if isinstance(step, ScoreStrategy) and step.mass is not None:
            raise UnsupportedError(
                f"{type(step).__name__} cannot run inside vLLM with mass={step.mass}: how many tokens an image keeps "
                f"is then known only after it is encoded, but vLLM counts them before. Leave out mass, and each image "
                f"keeps keep_ratio."
            )
    if strategy.biases_attention:
        raise UnsupportedError(
            f"{name} cannot run inside vLLM with an attention_bias: vLLM's attention takes no mask that adds to its "
            f'logits. Leave "attention_bias" out.'
        )
    if not isinstance(strategy, StagedStrategy):
        return
    if valid_stages(strategy, n_layers):
        hint = 'Write "progressive": false to prune in one stage.' if hasattr(strategy, "progressive") else other
        raise UnsupportedError(
            f"{name} cannot run inside vLLM: it prunes inside the language model too, and vLLM has one KV length for "
            f"all layers. {hint}"
        )
    if valid_skips(strategy, n_layers):
        raise UnsupportedError(f"{name} cannot run inside vLLM: it skips decoder layers. {other}")
