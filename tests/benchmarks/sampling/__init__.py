"""The race of samplers: problems, evaluations kept on disk, runs, rows from outside, the table."""
