"""Families whose language models attend to the tokens that an indexer chooses."""
