"""The page of a report: one HTML file that opens from disk, runs its own script alone and loads nothing."""
