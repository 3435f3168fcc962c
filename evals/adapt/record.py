"""What an adapter was trained with, as `adapt` writes it beside the weights, and how vLLM serves it. Does not load
PEFT."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.reading.fields import as_object
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import KEY, Settings
from tokenprune.strategy import Strategy
from tokenprune.text_files import parse_json, read_text

#: In the output folder of `adapt`: the adapter, and what identifies the training, of which the adapter has a copy.
ADAPTER, IDENTITY = "adapter", "adapt.json"
#: In PEFT's adapters.
CONFIG = "adapter_config.json"
#: The values of vLLM's --max-lora-rank.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class AdapterRecord:
    """folder: the adapter. strategy: what pruned the model in its training, at the lowest keep ratio. highest: the
    highest keep ratio. rank: LoRA's."""

    folder: Path
    strategy: Strategy
    highest: float
    rank: int

    @classmethod
    def read(cls, folder: Path) -> AdapterRecord:
        """Read the record of an adapter, or of the output folder of `adapt`. DataError if there is none."""
        place = folder if (folder / CONFIG).is_file() else folder / ADAPTER
        if not (place / CONFIG).is_file():
            raise DataError(
                f"{folder}: is not an adapter, which has a {CONFIG}. Name the output of `tokenprune adapt`."
            )
        path = next((one / IDENTITY for one in (place, place.parent) if (one / IDENTITY).is_file()), None)
        if path is None:
            raise DataError(
                f"{place}: does not say what it was trained with, since it has no {IDENTITY}. Copy that of the output "
                f"folder of `tokenprune adapt` there. To serve it unchecked, leave out --adapter and pass vLLM "
                f"--enable-lora --lora-modules NAME={place}"
            )
        found, config = (as_object(parse_json(read_text(one), str(one)), str(one)) for one in (path, place / CONFIG))
        try:
            settings, ratios, rank = found.get("settings", {}), found["ratios"], int(config["r"])
            strategy = Settings.read(
                {"strategy": found["strategy"], **settings, "keep_ratio": ratios["lowest"]}
            ).strategy
            return cls(place.resolve(), strategy, float(ratios["highest"]), rank)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: is not as `tokenprune adapt` writes it: {error}. Copy it again.") from error

    def difference(self, strategy: Strategy) -> str | None:
        """How a server with this strategy differs from the training; None if it does not."""
        trained: Any = self.strategy
        asked: Any = strategy
        lowest, ratio = trained.keep_ratio, asked.keep_ratio
        same = replace(asked, keep_ratio=lowest, keep=None) == trained
        if same and ratio is not None and lowest <= ratio <= self.highest:
            return None
        return (
            f"The adapter was trained with {self.strategy!r} and keep ratios from {lowest:g} to {self.highest:g}, not "
            f"with {strategy!r}: measure whether it helps."
        )

    def options(self, overrides: Mapping[str, Any]) -> list[str]:
        """vLLM's options that apply it to every request with images, given the server's --hf-overrides. If these differ
        from the training, says how on stderr. UnsupportedError for a model to which vLLM applies no adapters."""
        (name,) = overrides["architectures"]
        if not ARCHITECTURES[name].takes_adapters:
            raise UnsupportedError(
                f"vLLM is not known to apply adapters to {name}. Merge the adapter into the weights (merge_and_unload "
                f"of PEFT), and serve the result without --adapter."
            )
        if (said := self.difference(Settings.read(overrides[KEY]).strategy)) is not None:
            print(said, file=sys.stderr, flush=True)
        rank = next((one for one in RANKS if one >= self.rank), self.rank)
        images = json.dumps({"image": str(self.folder)})
        return ["--enable-lora", "--max-lora-rank", str(rank), "--default-mm-loras", images]
