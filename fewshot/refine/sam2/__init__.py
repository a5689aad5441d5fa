"""SAM 2 (Ravi et al., 2024): Segment Anything with a memory that carries a mask from slice to slice."""

from fewshot.refine.sam2.load import load_sam2

__all__ = ["load_sam2"]
