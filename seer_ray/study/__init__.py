"""What layers of other kinds cost and bring."""
