"""The data types in which models are loaded. Imports nothing, so that a command's help can show them at once."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
