"""Classes that the generic adapter serves as it is: the contract matrix has found each exact."""

from __future__ import annotations

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter

register_adapter(
    "Lfm3VlForConditionalGeneration",
    "MuseGlimmerForConditionalGeneration",
    "MuseSparkForConditionalGeneration",
)(GenericAdapter)
