"""Which tokens of a prompt are left, and the masks and position IDs that go with them."""
