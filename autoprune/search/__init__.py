"""The study: proposals, storage, the loop."""
