"""Strategies that choose the next image to label."""

from lib.activelearning.random import Random

__all__ = ["Random"]
