"""Points beside labels that are kept here and not in the PACS."""

from __future__ import annotations

import numpy as np

from fewshot.landmarks.files import read_points
from fewshot.volumes import read_volume, write_labels


def test_they_come_and_go_with_the_label(fake, folder, uid, open_pacs, tmp_path):
    fake.store(folder)
    project, pacs = open_pacs()
    pacs._stored = project.results.write_beside
    volume = read_volume(pacs.get_image_uri(uid))
    drawn = np.zeros(volume.shape, np.uint8)
    drawn[2, 1, 1] = 1
    sent = tmp_path / "sent.nii.gz"
    write_labels(sent, drawn, volume)
    pacs.save_label(uid, str(sent), "original", {"label_info": [{"name": "tip landmark"}]})
    label = pacs.get_label_uri(uid, "original")
    (beside,) = tmp_path.rglob("*.mrk.json")
    assert str(beside) == label.replace(".nii.gz", ".mrk.json")
    marks, _ = read_points(beside, volume)
    np.testing.assert_allclose(marks["tip landmark"].point, (volume.affine @ [2, 1, 1, 1])[:3], atol=1e-3)
    assert pacs.list_images() == [uid]
    pacs.remove_label(uid, "original")
    assert not list(tmp_path.rglob("*.mrk.json"))
    assert not list(tmp_path.rglob("*.landmarks.json"))
