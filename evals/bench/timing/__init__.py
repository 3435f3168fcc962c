"""Clocks, and what disturbs them.

clock      which phases of a prompt and its answer are timed
stopwatch  seconds between moments, and in hooks
memory     the peak of a call, and what is free
load       how busy other processes keep the machine
"""
