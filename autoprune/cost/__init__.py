"""MACs, bytes, traffic, energy and latency."""
