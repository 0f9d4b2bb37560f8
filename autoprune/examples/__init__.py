"""Complete tasks on real data."""
