"""The contract of a model adapter: what a family must and may answer."""

from tokenprune.adapters.base.adapter import ModelAdapter

__all__ = ["ModelAdapter"]
