"""How close sparse stays to dense, and dividing a budget over layers."""
