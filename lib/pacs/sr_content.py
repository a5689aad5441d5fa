"""The content of a report on landmarks: TID 1500, a measurement group (TID 1410, or 1501 without a place) for each."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr import codedict
from pydicom.sr.coding import Code

from fewshot.errors import FewshotError
from fewshot.landmarks.result import FoundLandmark, LandmarkPrediction
from fewshot.landmarks.template import Point
from lib.landmarks.results import BY_HAND

codes: Any = codedict.codes  # whose attributes are made at run time

LONGEST = 64
"""Characters of a code's meaning (LO)."""
SCHEME = "99FEWSHOT"
"""Designator of the codes of landmarks: a landmark is whatever somebody named, and that is its code's meaning."""
STRUCTURE: Final = Code("123037004", "SCT", "Anatomical Structure")
PROGRAM = "fewshot"
SOMEBODY = "Annotator"
"""The observer of what a person marked, where nobody knows who that was."""

PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
    "NM": codes.LN.NMUnspecifiedBodyRegion,
}
"""Procedure Reported by modality (CID 100)."""

Placed = Callable[[Point], tuple[ImageRegion | ImageRegion3D, SourceImageForMeasurement]]
"""Says a point (RAS+ mm) as DICOM does, and the image that shows it."""

_Group = PlanarROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations


def report_of(
    prediction: LandmarkPrediction, placed: Placed, *, modality: str, image: str, creator: str
) -> MeasurementReport:
    """Tell all landmarks: those that were found with their points, the others as absent, with the reason.

    What a model found is the program's observation, with its certainty; what was marked by hand is a person's.

    Args:
        prediction: of one image.
        placed: says where a point is.
        modality: of the image.
        image: its SeriesInstanceUID; reports of one image tell a landmark under one tracking UID.
        creator: the observer of what was marked by hand; empty where nobody is known.

    Raises:
        FewshotError: without landmarks, or for a name that DICOM cannot hold.
    """
    if not prediction.landmarks:
        raise FewshotError(
            "No report was written: the prediction has no landmark; fit a model with some first."
        )
    made = prediction.provenance
    algorithm = None
    if by_hand(prediction):
        name = creator or SOMEBODY
        if "^" not in name:
            name = f"{name[: LONGEST - 1]}^"  # highdicom doubts a name of one part without it
        person = PersonObserverIdentifyingAttributes(name)
        context = ObservationContext(observer_person_context=ObserverContext(codes.DCM.Person, person))
    else:
        version, model = str(made.get("fewshot") or "unknown"), str(made.get("model") or "")
        algorithm = AlgorithmIdentification(PROGRAM, version, _parameters(made))
        device = DeviceObserverIdentifyingAttributes(
            uid=named_uid(PROGRAM, version, model),
            name=PROGRAM,
            manufacturer_name=PROGRAM,
            model_name=str(made.get("method") or PROGRAM),
            serial_number=model or None,
        )
        context = ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))
    return MeasurementReport(
        observation_context=context,
        procedure_reported=PROCEDURES.get(modality, codes.SCT.ImagingProcedure),
        imaging_measurements=[
            _group(landmark, placed, algorithm, named_uid(image, name))
            for name, landmark in prediction.landmarks.items()
        ],
    )


def by_hand(prediction: LandmarkPrediction) -> bool:
    """Whether a person has marked the landmarks."""
    return prediction.provenance.get("method") == BY_HAND


def named_uid(*names: str) -> str:
    """A DICOM UID that is always the same for the same names (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join((PROGRAM, *names))).int}"


def landmark_code(name: str) -> Code:
    """A landmark's private code: the same for the same name, wherever it is written.

    Raises:
        FewshotError: for a name that DICOM cannot hold.
    """
    if not name.strip() or len(name) > LONGEST or "\\" in name or not name.isprintable():
        raise FewshotError(
            f"No report was written: DICOM cannot hold the landmark name {name!r}; rename it to at most "
            f"{LONGEST} characters without backslash."
        )
    return Code(hashlib.blake2b(name.encode(), digest_size=8).hexdigest(), SCHEME, name)


def _group(
    landmark: FoundLandmark, placed: Placed, algorithm: AlgorithmIdentification | None, uid: str
) -> _Group:
    """What is said about a landmark, by an algorithm or by a person."""
    common: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(uid=uid, identifier=landmark.name),
        "finding_category": STRUCTURE,
        "finding_type": landmark_code(landmark.name),
        "algorithm_id": algorithm,
    }
    if landmark.point is None:
        absent = QualitativeEvaluation(codes.DCM.PresenceOfProperty, codes.SCT.Absent)
        group = MeasurementsAndQualitativeEvaluations(**common, qualitative_evaluations=[absent])
        told = ": ".join(text for text in ("Not found" if algorithm else "", landmark.reason) if text)
        group[0].ContentSequence.append(
            TextContentItem(codes.DCM.Comment, told, RelationshipTypeValues.CONTAINS)
        )
        return group
    region, image = placed(landmark.point)
    if algorithm is None:
        return PlanarROIMeasurementsAndQualitativeEvaluations(**common, referenced_region=region)
    certainty = Measurement(
        name=codes.DCM.CertaintyOfFinding,
        value=round(100 * landmark.confidence, 2),
        unit=codes.UCUM.Percent,
        referenced_images=[image],
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        **common, referenced_region=region, measurements=[certainty]
    )


def _parameters(made: dict[str, Any]) -> list[str] | None:
    """What the points were found with, as algorithm parameters."""
    backbone = made.get("backbone") or {}
    told = {
        "method": made.get("method"),
        "model": made.get("model"),
        "backbone": " ".join(str(backbone[key]) for key in ("name", "digest") if backbone.get(key)),
        "templates": len(made.get("templates") or ()),
    }
    text = ", ".join(f"{key}: {value}" for key, value in told.items() if value)
    return [text] if text else None
