"""The calls that change a loaded model, and the handles that change it back.

pruning            `patch` and `unpatch`
probing            `probe`, which reads attention and prunes nothing
decoder_attention  the attention of decoder layers, for probes
handle             what all handles share
"""

from tokenprune.patching.probing import Probe, ProbedImage, probe
from tokenprune.patching.pruning import PatchHandle, patch, unpatch

__all__ = ["PatchHandle", "Probe", "ProbedImage", "patch", "probe", "unpatch"]
