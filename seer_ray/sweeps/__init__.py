"""Many runs over the same problems."""
