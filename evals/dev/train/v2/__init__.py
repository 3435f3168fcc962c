"""The recipe of the second bundled model: several grids, more things, text, counting and relations."""
