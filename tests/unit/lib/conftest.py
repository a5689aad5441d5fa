"""Studies, a workspace and a project without a server."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from lib.configs.registry import CONFIGS
from lib.configs.settings import AppSettings
from lib.datastore import StudiesFolder
from lib.labels import LabelDictionary
from lib.project import Project
from tests.unit.conftest import blobs


def write_study(folder: Path, name: str, seed: int) -> np.ndarray:
    """Write a blobs volume as NIfTI; returns its labels."""
    volume, labels = blobs(seed)
    nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / f"{name}.nii.gz")
    return labels


def write_label(path: Path, labels: np.ndarray, like: Path) -> Path:
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), nib.load(like).affine), path)
    return path


@pytest.fixture
def dictionary(tmp_path: Path) -> LabelDictionary:
    return LabelDictionary(tmp_path / "workspace" / "labels.json")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two studies a and b."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        write_study(folder, name, seed)
    return folder


@pytest.fixture
def open_project(tmp_path: Path, studies: Path):
    """Opens a project on the studies, as the app does."""

    def open_with(**conf: str) -> Project:
        conf = {"backbone": "random-tiny", "bank": str(tmp_path / "bank"), **conf}
        settings = AppSettings.parse(conf, models=tuple(CONFIGS))
        project = Project.open(tmp_path / "app", str(studies), settings)
        project.datastore = StudiesFolder(
            str(studies),
            extensions=["*.nii.gz"],
            check=project.check_label,
            stored=project.results.write_beside,
            vanished=project.results.forget_all_but,
            auto_reload=False,
            read_only=False,
        )
        return project

    return open_with


@pytest.fixture
def submit(tmp_path: Path, studies: Path):
    """Submits a label to a project, as the viewer's request does."""

    def save(
        project: Project, image: str, labels: np.ndarray, names: list[str] | None, tag: str = "final"
    ) -> None:
        file = write_label(tmp_path / "sent.nii.gz", labels, studies / f"{image}.nii.gz")
        info = (
            {"label_info": [{"name": name, "idx": 40 + i} for i, name in enumerate(names)]} if names else {}
        )
        project.datastore.save_label(image, str(file), tag, info)
        if tag == "final":
            project.learn_names(image)

    return save
