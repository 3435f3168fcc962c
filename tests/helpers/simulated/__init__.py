"""Devices, kernels and servers that this machine does not have, simulated."""
