"""Front, plots and report: what a study found, from its records alone."""
