"""Frozen backbones and the bank that keeps their features."""

from fewshot.features.backbone import Backbone
from fewshot.features.bank import BankEntry, FeatureBank, default_bank_folder
from fewshot.features.choice import choose_backbone
from fewshot.features.registry import AUTO, BACKBONES, check_name, load_backbone

__all__ = [
    "AUTO",
    "BACKBONES",
    "Backbone",
    "BankEntry",
    "FeatureBank",
    "check_name",
    "choose_backbone",
    "default_bank_folder",
    "load_backbone",
]
