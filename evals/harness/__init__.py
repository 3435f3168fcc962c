"""The lmms-eval plug-in."""
