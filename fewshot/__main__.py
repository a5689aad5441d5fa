"""``python -m fewshot``, the form that torchrun starts."""

from fewshot.cli import main

main()
