"""One run from its folder to its end, and the frame of every job."""
