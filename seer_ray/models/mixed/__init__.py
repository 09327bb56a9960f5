"""A small decoder whose layers mix tokens each in its own way, to be trained from scratch."""
