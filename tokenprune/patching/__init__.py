"""The calls that change a loaded model, and the handles that change it back."""

from tokenprune.patching.pruning import PatchHandle, patch, unpatch

__all__ = ["PatchHandle", "patch", "unpatch"]
