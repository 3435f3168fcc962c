"""The calls that change a loaded model, and the handles that restore it.

pruning            `patch` and `unpatch`, and what all handles share
probing            `probe`, which records statistics without pruning
decoder_attention  reads the attention of decoder layers, for probes
untested           checks combinations of classes that no test covers by numbers
"""

from tokenprune.patching.probing import Probe, ProbedImage, probe
from tokenprune.patching.pruning import PatchHandle, patch, unpatch

__all__ = ["PatchHandle", "Probe", "ProbedImage", "patch", "probe", "unpatch"]
