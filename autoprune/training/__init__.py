"""Pruning while a network trains: schedules, methods, masks that an optimizer cannot undo, distillation."""
