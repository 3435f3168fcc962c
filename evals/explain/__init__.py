"""Which tokens every strategy keeps of one image, as a table, a sheet and a page."""
