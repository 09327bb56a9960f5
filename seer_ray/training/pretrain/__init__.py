"""Small models, trained from scratch."""
