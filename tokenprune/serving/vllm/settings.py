"""The settings of a pruned engine: the key "tokenprune" of `--hf-overrides`, and what a request may set itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from typing import Any, cast

import tokenprune
from tokenprune.checks import check_choice, check_count, is_number
from tokenprune.errors import SettingError
from tokenprune.sequence.position_ids import PositionIds
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.strategies.compose import Compose
from tokenprune.strategies.parsing import StrategySpec
from tokenprune.strategies.registry import check_types
from tokenprune.strategy import Strategy

#: The attribute of the model's config that vLLM makes of the override.
KEY = "tokenprune"
#: What a request may set, in `mm_processor_kwargs`: a fraction or a number of each image's visual tokens, a fraction
#: for its videos, and the most that all images and videos of its prompt keep together, which an engine may limit.
REQUESTED = ("keep_ratio", "keep", "video_keep_ratio", "keep_in_prompt")
KEEP_RATIO, KEEP, VIDEO_KEEP_RATIO, KEEP_IN_PROMPT = REQUESTED
#: Whether all frames of a video share one budget, as those that a strategy compares do anyway.
WHOLE_VIDEOS = "whole_videos"
EXAMPLE = '{"architectures": ["TokenPruneLlava"], "tokenprune": {"strategy": "fopru", "keep_ratio": 0.25}}'
#: The settings that are not the strategy's.
OWN = ("strategy", "position_ids", "record", KEEP_IN_PROMPT, WHOLE_VIDEOS)
#: The options of the model's own processor that hold those of one modality.
SCOPES = ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs")
#: How position IDs are chosen, in the settings and in tokenprune's commands.
COMPACT, ORIGINAL = (f'"position_ids": "{ids}" (--position-ids {ids})' for ids in ("compact", "original"))
#: The least similarity of a mistyped setting of a request; that of "keep_aspect_ratio", which processors have, is 0.75.
ALIKE = 0.8
#: How many times longer than the longest sequence an unpruned prompt may be: at least, and if the budget is a count or
#: depends on the pixels.
LEAST_STRETCH, COUNT_STRETCH = 4, 16
#: More visual tokens than an image has.
MANY = 2**20


@dataclass(frozen=True)
class Budget:
    """How many of an image's visual tokens a request keeps: a fraction or a number; exactly one is given.

    Raises SettingError for an invalid one.
    """

    keep_ratio: float | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_count("mm_processor_kwargs", KEEP, self.keep)
        elif not (is_number(self.keep_ratio) and 0 < self.keep_ratio <= 1):
            raise SettingError(
                f"mm_processor_kwargs: {KEEP_RATIO}={self.keep_ratio!r} is not a fraction in (0, 1]. It is the "
                f"fraction of visual tokens that are kept: write 0.25 to keep a quarter of them, or 1.0 to keep all."
            )


@dataclass(frozen=True)
class Settings:
    """An engine's pruning settings.

    position_ids: as in `tokenprune.patch`; None becomes the strategy's default.
    record: the path of a file that gets one JSON line per encoded image, or None.
    keep_in_prompt: the most visual tokens that the images and videos of a prompt keep together, or None.
    whole_videos: whether all frames of a video share one budget.
    """

    strategy: Strategy
    position_ids: PositionIds | None = None
    record: str | None = None
    keep_in_prompt: int | None = None
    whole_videos: bool = False

    def __post_init__(self) -> None:
        if self.position_ids is None:
            object.__setattr__(self, "position_ids", self.strategy.default_position_ids)

    @classmethod
    def read(cls, written: object) -> Settings:
        """Read `{"strategy": "fopru", "keep_ratio": 0.25, ...}`: a strategy as `patch` takes it, its settings, and
        optionally `position_ids` and `record`. Raises SettingError for anything wrong in it."""
        where = f'--hf-overrides, "{KEY}": '
        if not isinstance(written, Mapping) or "strategy" not in written:
            raise SettingError(f"{where}expected settings with a strategy, found {written!r}. Write {EXAMPLE}")
        own = {name: written[name] for name in OWN if name in written}
        check_choice("tokenprune", "position_ids", own.get("position_ids", "original"), ("original", "compact"))
        if not isinstance(own.get("record", ""), str):
            raise SettingError(f'{where}record={own["record"]!r} is not a path. Write "record": "kept.jsonl".')
        if KEEP_IN_PROMPT in own:
            check_count("tokenprune", KEEP_IN_PROMPT, own[KEEP_IN_PROMPT])
        if not isinstance(own.get(WHOLE_VIDEOS, False), bool):
            raise SettingError(f"{where}{WHOLE_VIDEOS}={own[WHOLE_VIDEOS]!r} is neither true nor false.")
        spec = StrategySpec.read(own.pop("strategy"))
        settings = {name: value for name, value in written.items() if name not in OWN}
        check_types(spec.strategy_class, settings, where)
        return cls(spec.make(settings, also=OWN), **own)

    @classmethod
    def of(cls, hf_config: Any) -> Settings:
        """The settings in a model's config, with compact position IDs, whatever they say, if its language model reads
        none. Raises SettingError if there are none."""
        settings = cls.read(getattr(hf_config, KEY, None))
        reads_ids = ARCHITECTURES[hf_config.architectures[0]].reads_position_ids
        return settings if reads_ids else replace(settings, position_ids="compact")

    def strategy_at(self, asked: Budget | None) -> Strategy | None:
        """The strategy for an image whose request asks for this budget, or for none. Returns None if the image is not
        pruned, at a ratio of 1."""
        if asked is None:
            return self.strategy if self.by_pixels or self.strategy.budget(MANY) < MANY else None
        return None if asked.keep_ratio == 1 else replace(self.strategy, keep_ratio=asked.keep_ratio, keep=asked.keep)

    def check_options(self, options: object, request: bool) -> None:
        """Raise SettingError if the options of the model's own processor, or those for one modality, are not a dict.
        Also for options meant for us: the name of a setting in any spelling (of any strategy in a sequence too), or
        one like those that only a `request` may have."""
        where = "mm_processor_kwargs" if request else "--mm-processor-kwargs"
        if not isinstance(options, Mapping):
            example = {KEEP_RATIO: 0.5}
            raise SettingError(f"{where}: expected a dict such as {example}, found {options!r}.")
        for scope in SCOPES:
            if not isinstance(part := options.get(scope, {}), Mapping):
                example = {"do_resize": False}
                raise SettingError(f"{where}: {scope!r}: expected a dict such as {example}, found {part!r}.")
        steps = self.strategy.steps if isinstance(self.strategy, Compose) else ()
        names = [field.name for part in (self.strategy, *steps) for field in fields(part)]
        ours = {_plain(name): name for name in (KEY, *OWN, *names)}
        inside = {f"{of}.{name}": name for of, part in options.items() if isinstance(part, Mapping) for name in part}
        for path, name in {**{name: name for name in options}, **inside}.items():
            alike = [own for own in REQUESTED if SequenceMatcher(None, _plain(name), _plain(own)).ratio() >= ALIKE]
            setting = ours.get(_plain(name), next(iter(alike), None))
            if setting is None or (request and path in REQUESTED):
                continue
            if request and setting in REQUESTED:
                raise SettingError(f"{where}: {path!r} does nothing. Did you mean {setting!r}?")
            elsewhere = f"Write it in --hf-overrides, such as {EXAMPLE}."
            if request:
                elsewhere = f"Leave it out; a request can only set {', '.join(REQUESTED)}."
            raise SettingError(
                f"{where}: {path!r} does nothing, since {setting!r} is a setting of the whole engine. {elsewhere}"
            )

    def budget(self, n_visual: int, asked: Budget | None) -> int:
        """How many of an image's visual tokens are kept, given the budget of its request."""
        strategy = self.strategy_at(asked)
        return n_visual if strategy is None else strategy.budget(n_visual)

    def most_in_prompt(self, request: Mapping[str, object]) -> int | None:
        """The most visual tokens that a prompt's images and videos keep together: the request's limit, or the engine's
        if that is lower; None without either. Raises SettingError for an invalid one."""
        asked = request.get(KEEP_IN_PROMPT)
        if asked is not None:
            check_count("mm_processor_kwargs", KEEP_IN_PROMPT, asked)
        return min((cast("int", most) for most in (asked, self.keep_in_prompt) if most is not None), default=None)

    def budget_of_smaller(self, n_encoded: int, asked: Budget | None) -> int:
        """How many visual tokens are kept of a smaller version with `n_encoded`; all if no strategy follows."""
        strategy = self.strategy_at(asked)
        later = strategy.steps[1:] if isinstance(strategy, Compose) else ()
        return min([n_encoded, *(step.budget(n_encoded) for step in later)])

    def n_positions(self, max_model_len: int) -> int:
        """How many position IDs an engine provides, given how many tokens its sequences may have: as if each of them
        were a visual token that the strategy kept, and at least as if a request had asked to keep a quarter."""
        return math.ceil(max_model_len * self._stretch)

    def max_model_len(self, n_positions: int) -> int:
        """The most tokens that a sequence may have if an engine provides this many position IDs."""
        return math.floor(n_positions / self._stretch)

    @property
    def _stretch(self) -> float:
        """How many position IDs an engine provides for each token of its longest sequence."""
        if self.position_ids == "compact":
            return 1.0
        n_kept = self.strategy.budget(MANY)
        if self.shrinks:  # the largest grid within a budget may have half as many tokens
            n_kept //= 2
        if self.by_pixels or n_kept == self.strategy.budget(2 * MANY):  # a count, in any step of a Compose
            return float(COUNT_STRETCH)
        return float(max(LEAST_STRETCH, MANY / n_kept))

    @property
    def by_pixels(self) -> bool:
        """Whether an image keeps fewer tokens than its budget if its pixels leave fewer."""
        return "kept_before_tower" in self.strategy.needs

    @property
    def shrinks(self) -> bool:
        """Whether smaller versions of images are encoded."""
        return "shrunk" in self.strategy.needs

    @property
    def only_shrinks(self) -> bool:
        """Whether all visual tokens of smaller versions are kept, so that the model numbers prompts as usual."""
        return self.shrinks and not isinstance(self.strategy, Compose)

    @property
    def needs_video(self) -> bool:
        """Whether the strategy compares the frames of videos, so that images are not pruned."""
        return "frames" in self.strategy.needs

    @property
    def joins_frames(self) -> bool:
        """Whether the frames of a video are pruned together."""
        return self.whole_videos or self.needs_video

    @property
    def digest(self) -> str:
        """Eight characters that differ between engines whose encoder outputs or KV caches differ."""
        text = f"{tokenprune.__version__} {self.strategy!r} {self.position_ids} {self.whole_videos}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def split_request(kwargs: Mapping[str, object], modality: str = "image") -> tuple[Budget | None, dict[str, object]]:
    """Split a request's `mm_processor_kwargs` into its budget for a modality, None if there is none, and the options of
    the model's own processor. Raises SettingError for an invalid budget, or two."""
    budget = {name: kwargs[name] for name in (KEEP_RATIO, KEEP) if kwargs.get(name) is not None}
    if len(budget) > 1:
        raise SettingError(f"mm_processor_kwargs: {KEEP_RATIO} and {KEEP} are both given. Leave one out.")
    if modality == "video" and kwargs.get(VIDEO_KEEP_RATIO) is not None:
        budget = {KEEP_RATIO: kwargs[VIDEO_KEEP_RATIO]}
    others = {name: value for name, value in kwargs.items() if name not in REQUESTED}
    return Budget(**cast("dict[str, Any]", budget)) if budget else None, others


def _plain(name: str) -> str:
    """A name without what is often mistyped: capitals, underscores and hyphens."""
    return "".join(filter(str.isalnum, name)).lower()
