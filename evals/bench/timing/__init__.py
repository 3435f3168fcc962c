"""Clocks, and what disturbs them.

clock      which phases of a prompt and its answer are timed
stopwatch  moments, and the time that hooks take
memory     the peak of a call
load       what other processes use of the machine
"""
