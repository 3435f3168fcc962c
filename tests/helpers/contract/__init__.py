"""The contract: what is asked of a patched model, and the masking oracle that knows the answer."""
