"""The calls that change a loaded model, and the handles that change it back."""

from tokenprune.patching.probing import Probe, ProbedImage, probe
from tokenprune.patching.pruning import PatchHandle, patch, unpatch

__all__ = ["PatchHandle", "Probe", "ProbedImage", "patch", "probe", "unpatch"]
