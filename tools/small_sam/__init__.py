"""Trains the small Segment Anything that ships with fewshot: `python -m tools.small_sam --help`."""
