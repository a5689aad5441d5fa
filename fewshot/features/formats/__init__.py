"""Checkpoints in the formats that people have, brought to one naming of parameters."""
