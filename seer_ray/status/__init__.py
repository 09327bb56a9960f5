"""What a job says of itself, and what its folder tells others."""
