"""--conf: what is said is checked, and what is wrong is told with what would be right."""

from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from fewshot import pipeline
from fewshot.errors import FewshotError
from lib.configs.settings import COMPONENTS, PARSERS, AppSettings

MODELS = ("fewshot", "fewshot_basic")


def parse(**conf):
    return AppSettings.parse(conf, models=MODELS)


def test_nothing_said_leaves_everything_to_the_engine():
    settings = parse()
    assert settings.models is None
    assert settings.labels == ()
    assert (settings.plane, settings.window, settings.size) == ("auto", "auto", None)
    assert (settings.refine, settings.sam) == ("auto", "auto")


def test_everything_said(tmp_path: Path):
    settings = parse(
        models="fewshot_basic, fewshot",
        labels="liver, left kidney",
        landmarks="nasion, left tragus",
        backbone="random-tiny",
        plane="coronal",
        window="ct-bone",
        size="224",
        bank=str(tmp_path),
        bank_gb="2.5",
        workspace=str(tmp_path / "w"),
        complete="Yes",
        components="all",
        refine="walker",
        sam="random-tiny",
        max_epochs="7",
        train_all="fewshot",
        modalities="ct, MR",
        poll="2.5",
        server_mode="true",
    )
    assert settings.models == ("fewshot_basic", "fewshot")
    assert settings.labels == ("liver", "left kidney")
    assert settings.landmarks == ("nasion", "left tragus")
    assert settings.train_all == ("fewshot",)
    assert (settings.refine, settings.sam) == ("walker", "random-tiny")
    assert (settings.modalities, settings.poll) == (("CT", "MR"), 2.5)
    assert (settings.size, settings.bank_gb, settings.complete, settings.max_epochs) == (224, 2.5, True, 7)


@pytest.mark.parametrize("name", ["auto", "embedded", "dinov3_vits16"])
def test_a_backbone_may_be_named(name):
    assert parse(backbone=name).backbone == name


def test_a_backbone_may_be_a_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dino").mkdir()
    assert parse(backbone="dino").backbone == str(tmp_path / "dino")


def test_all_means_all():
    assert parse(models="all").models is None
    assert parse(landmarks="all").landmarks is None
    assert parse().landmarks == ()


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        (
            {"modles": "fewshot"},
            r"--conf modles: there is no such key; the app knows models, labels, .*max_epochs",
        ),
        ({"models": "unet"}, "no model unet; choose from fewshot, fewshot_basic"),
        ({"train_all": "unet"}, "--conf train_all: there is no model unet; choose from fewshot"),
        ({"labels": "liver,,spleen"}, "--conf labels liver,,spleen: give names"),
        ({"labels": "liver,liver"}, "twice"),
        ({"labels": "background"}, "cannot be called background"),
        ({"landmarks": "nasion,,inion"}, "--conf landmarks nasion,,inion: give names"),
        ({"landmarks": "nasion,nasion"}, "twice"),
        ({"landmarks": "background"}, "cannot be called background"),
        ({"backbone": "resnet"}, "--conf backbone resnet: .*embedded"),
        ({"backbone": "dinov2_vits"}, "--conf backbone dinov2_vits: .*dinov2_vits14.* would come close"),
        ({"backbone": "weights/x.pth"}, "no backbone file or folder weights/x.pth"),
        ({"plane": "diagonal"}, "axial"),
        ({"window": "ct-moon"}, "ct-soft"),
        ({"size": "big"}, "whole number"),
        ({"size": "5"}, "pixels"),
        ({"bank_gb": "-1"}, "above 0"),
        ({"bank_gb": "inf"}, "above 0"),
        ({"complete": "maybe"}, "true or false"),
        ({"components": "some"}, "choose from auto, largest, all"),
        ({"refine": "snake"}, "choose from auto, none, walker, sam, sam2"),
        ({"sam": "sam_vit_x"}, "--conf sam sam_vit_x: .*sam_vit_b"),
        ({"max_epochs": "0"}, "at least 1"),
        ({"modalities": "CT,*"}, r"\* is no modality; .*CT,MR"),
        ({"poll": "0"}, "--conf poll 0: give a number of seconds above 0"),
        ({"poll": "often"}, "number of seconds"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(conf, sentence):
    with pytest.raises(FewshotError, match=sentence) as failure:
        parse(**conf)
    assert "\n" not in str(failure.value)


def test_every_key_has_a_parser():
    assert set(PARSERS) == set(AppSettings.__dataclass_fields__)


def test_components_are_the_engines():
    assert COMPONENTS == pipeline.COMPONENTS
