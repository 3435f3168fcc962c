"""Writers of data sets and result files in published formats."""
