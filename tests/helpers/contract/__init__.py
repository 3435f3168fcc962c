"""The contract: the runs of a patched model, and the masking oracle with the expected results."""
