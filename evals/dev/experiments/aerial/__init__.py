"""BackgroundPruning on aerial photographs."""
