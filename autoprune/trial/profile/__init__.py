"""The dense network on a device, module by module, and what pruning pays there: ``autoprune profile``."""
