"""Token merging for document-retrieval models."""
