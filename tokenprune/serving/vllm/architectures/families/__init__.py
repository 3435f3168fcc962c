"""Records of models: every module here is found, and has its records in `RECORDS`."""
