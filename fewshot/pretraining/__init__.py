"""Self-supervised training of a backbone on unlabelled studies: DINOv2's recipe with a dense term."""

from fewshot.features import torchvision_ops

torchvision_ops.ensure()  # timm and lightly import torchvision

from fewshot.pretraining.run import PretrainResult, pretrain  # noqa: E402
from fewshot.pretraining.settings import PretrainSettings  # noqa: E402
from fewshot.pretraining.studies import open_studies  # noqa: E402

__all__ = ["PretrainResult", "PretrainSettings", "open_studies", "pretrain"]
