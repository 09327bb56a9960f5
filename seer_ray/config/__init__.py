"""What options there are, how they are written, read, checked and told apart."""
