"""DINOv2's losses by lightly, and the cross-view loss of corresponding places."""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from torch import Tensor, nn

from fewshot.pretraining.settings import PretrainSettings
from fewshot.pretraining.views import Places

NEAR = 9.6
"""Other places nearer than this (crop pixels, 1.2 patches of eight) are no negatives: they look the same."""


class Losses(nn.Module):
    """All terms; the centres of DINO and iBOT are state to be kept with a checkpoint."""

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dino = DINOLoss(settings.prototypes) if settings.dino else None
        self.ibot = IBOTPatchLoss(settings.prototypes) if settings.ibot else None
        self.koleo = KoLeoLoss()

    def forward(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor] | None,
        mask: Tensor,
        places: Places | None,
    ) -> dict[str, Tensor]:
        """Unweighted terms by name, and under ``accuracy`` how often a place was recognised (no gradient).

        Args:
            student, teacher: outputs of ``Network.forward`` on the same crops.
            mask: bool ``[2B, h, w]``, hidden tokens.
            places: where the dense outputs were taken.
        """
        settings, terms = self.settings, {}
        if self.dino is not None and teacher is not None:
            views = list(student["dino"].chunk(2))
            if "dino_local" in student:
                views += list(student["dino_local"].split(len(views[0])))
            terms["dino"] = self.dino(list(teacher["dino"].chunk(2)), views)
        if self.ibot is not None and teacher is not None and mask.any():
            terms["ibot"] = self.ibot(teacher["ibot"], student["ibot"], mask)
        if settings.koleo and settings.dino:
            terms["koleo"] = sum(self.koleo(half.float()) for half in student["image"].chunk(2)) / 2
        if places is not None:
            found = []
            for name in ("patches", "details"):
                if name in student:
                    first, second = student[name].chunk(2)
                    found.append(match_places(first, second, places, settings.temperature))
            terms["dense"] = torch.stack([loss for loss, _ in found]).mean()
            terms["accuracy"] = found[-1][1]
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        weights = {name: getattr(self.settings, name, 0.0) for name in terms}
        return torch.stack([weights[name] * term for name, term in terms.items() if weights[name]]).sum()


def match_places(first: Tensor, second: Tensor, places: Places, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE between the places of an image in its two crops, both ways (as in van den Oord et al. 2018).

    Args:
        first, second: ``[B, N, C]`` of unit length.

    Returns:
        The loss, and the share of places whose nearest one in the other crop is itself.
    """
    with torch.autocast(first.device.type, enabled=False):  # half a digit of a logit is lost in bfloat16
        logits = first.float() @ second.float().transpose(1, 2) / temperature
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    excluded = ((places.apart < NEAR) | ~places.valid[:, None, :]) & ~itself
    targets = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    rows = logits.masked_fill(excluded, -torch.inf)
    columns = logits.transpose(1, 2).masked_fill(excluded, -torch.inf)
    count = places.valid.sum().clamp(min=1)

    def entropy(values: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(values.transpose(1, 2), targets, reduction="none")
        return (each * places.valid).sum() / count

    right = ((rows.argmax(-1) == targets) & places.valid).sum() / count
    return (entropy(rows) + entropy(columns)) / 2, right.detach()
