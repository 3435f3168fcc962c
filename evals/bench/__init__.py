"""Speed and memory: what pruning saves of the unpruned model's time, and how near it comes to the ideal.

`tokenprune bench --help` measures. Read `measuring.py` first, then `ideal.py` and `clock.py` for what is compared and
which seconds are which; `report.py` puts stored results into READMEs.
"""
