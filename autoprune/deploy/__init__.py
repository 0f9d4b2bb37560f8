"""From a chosen config to a smaller model on disk."""
