"""The whole annotator loop over HTTP on made-up studies."""

from fewshot.demo.loop import run_demo

__all__ = ["run_demo"]
