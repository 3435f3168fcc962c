"""Visual tokens made by hand, whose selection can be computed on paper."""
