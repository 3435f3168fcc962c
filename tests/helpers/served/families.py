"""The families for which vLLM has its own models, as tiny models, and prompts with images of several shapes."""

from helpers.served.converted.families import CONVERTED_FAMILIES
from helpers.served.native.families import NATIVE_FAMILIES

FAMILIES = (*NATIVE_FAMILIES, *CONVERTED_FAMILIES)
