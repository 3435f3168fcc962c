"""What pruning does to the actions of robot policies."""
