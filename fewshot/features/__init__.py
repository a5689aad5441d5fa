"""Frozen backbones and the bank that keeps their features."""

from fewshot.features.backbone import Backbone
from fewshot.features.bank import BankEntry, FeatureBank, default_bank_folder
from fewshot.features.registry import BACKBONES, load_backbone

__all__ = ["BACKBONES", "Backbone", "BankEntry", "FeatureBank", "default_bank_folder", "load_backbone"]
