"""Tables of the documentation, from stored results."""
