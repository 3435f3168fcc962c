"""Speed and memory: how much pruning saves against the unpruned model, and how close it comes to the ideal.

Start reading at `measuring.py`; `ideal.py` defines what strategies are compared with, and `clock.py` what is timed.
"""
