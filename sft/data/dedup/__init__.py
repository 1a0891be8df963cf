"""Repeated rows and repeated text: what to keep, what to train on, what has leaked."""
