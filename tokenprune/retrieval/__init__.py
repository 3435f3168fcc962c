"""Token merging for document-retrieval models.

patching  `patch_retrieval`
ward      merges clusters of similar embeddings
"""

from tokenprune.retrieval.patching import RetrievalHandle, patch_retrieval

__all__ = ["RetrievalHandle", "patch_retrieval"]
