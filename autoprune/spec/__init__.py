"""What crosses the disk: recipes, spaces, device profiles, configs and records."""
