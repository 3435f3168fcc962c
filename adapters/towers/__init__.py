"""Vision towers: where their layers and attention are."""
