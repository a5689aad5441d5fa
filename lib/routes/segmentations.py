"""POST /infer/{model}?output=dicom_seg: a result as a DICOM segmentation (SEG) of its image in the PACS."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, HTTPException
from fastapi.responses import FileResponse
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from fewshot.errors import FewshotError

NIFTI = ".nii.gz"


def require_pacs(image: str) -> None:
    """Refuse what cannot have a segmentation in DICOM.

    Raises:
        HTTPException: 422.
    """
    if not isinstance(app_instance().datastore(), DICOMWebDatastore):
        raise HTTPException(
            422,
            "A DICOM segmentation needs images from a DICOMweb server, and this server has a folder of studies: "
            "ask for another output.",
        )
    if not image:
        raise HTTPException(
            422, "A DICOM segmentation belongs to a series in the PACS: name it as the image."
        )


def infer_seg(
    background_tasks: BackgroundTasks, model: str, image: str, values: Mapping[str, Any]
) -> FileResponse:
    """Infer an image of the PACS; each label that is found has its own name.

    Args:
        background_tasks: receives the removal of the file that is sent.
        image: the series.
        values: the request's params; MONAI Label's `label_info` is not needed.

    Raises:
        FewshotError: if nothing was found, or it cannot be written as a SEG.
    """
    from fewshot.volumes import read_labels
    from lib.pacs.seg_writing import write_seg

    instance = app_instance()
    config = instance.info().get("config", {}).get("infer", {})
    format_ = {"result_extension": ".nrrd", "result_write_to_file": True, "result_dtype": None}
    result = instance.infer({**config, **values, **format_, "model": model, "image": image})
    drawn = Path(result["file"])
    file, out = tempfile.mkstemp(prefix="seg-", suffix=".dcm")
    os.close(file)
    background_tasks.add_task(remove_file, out)
    path = Path(instance.datastore().get_image_uri(image))
    try:
        volume = instance.project.images.read(path)
        labels = read_labels(drawn, volume)
        if not labels.any():
            raise FewshotError(f"{model} found nothing in {image}: there is no segmentation to send.")
        write_seg(
            labels,
            {int(value): str(name) for name, value in result["params"]["label_names"].items()},
            path.with_name(path.name.removesuffix(NIFTI)),  # where the series is kept as it came
            volume,
            Path(out),
            description=model,
            algorithm="AUTOMATIC",
            algorithm_name=model,
            creator=str(values.get("client_id") or ""),
        )
    finally:
        with suppress(OSError):
            drawn.unlink()
    return FileResponse(out, media_type="application/dicom", filename=f"{image}.dcm")
