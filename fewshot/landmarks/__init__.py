"""Landmarks: points in every volume from a few marked templates."""

from fewshot.landmarks.model import LandmarkModel, load_landmark_model
from fewshot.landmarks.pipeline import find_landmarks, fit_landmarks
from fewshot.landmarks.result import Candidate, FoundLandmark, LandmarkPrediction
from fewshot.landmarks.template import LandmarkTemplate, Mark, landmark_names

__all__ = [
    "Candidate",
    "FoundLandmark",
    "LandmarkModel",
    "LandmarkPrediction",
    "LandmarkTemplate",
    "Mark",
    "find_landmarks",
    "fit_landmarks",
    "landmark_names",
    "load_landmark_model",
]
