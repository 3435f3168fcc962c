"""Muse Glimmer."""

from tokenprune.serving.vllm.architectures.architecture import Architecture

RECORDS = (
    Architecture(
        "TokenPruneMuseGlimmer", "muse_glimmer", "muse", title="Muse Glimmer",
        tower="families.muse:TOWER", prunes_videos=True, needs_pixels=True,
    ),
)  # fmt: skip
