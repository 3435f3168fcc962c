"""In every process of a server: vLLM's Triton kernels run in Triton's interpreter, as in the tests' own engines."""

from helpers.served.cpu.interpreted import interpret_kernels

interpret_kernels()
