"""What to run on a GPU, in pieces of at most nine minutes, each of which writes a JSON file: `make gpu`."""
