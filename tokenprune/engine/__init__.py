"""What happens to a patched model: hooks, selection, shortening, position IDs, caches. Private."""
