"""Visual tokens made by hand, whose selection can be worked out on paper."""
