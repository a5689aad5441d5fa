"""Few-shot, multi-label segmentation and landmark localisation on frozen DINOv2 features."""

__version__ = "0.6.0"
