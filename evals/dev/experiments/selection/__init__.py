"""Time of selection alone, without a model around it: what strategies do themselves."""
