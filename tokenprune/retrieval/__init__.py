"""Token merging for document-retrieval models."""

from tokenprune.retrieval.patching import RetrievalHandle, patch_retrieval

__all__ = ["RetrievalHandle", "patch_retrieval"]
