"""Clocks, and what disturbs measurements.

clock      times the phases of a prompt and its answer
stopwatch  seconds between two points, and in hooks
memory     peak memory of a call, and free memory
load       CPU use of other processes
"""
