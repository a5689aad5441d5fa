"""What MONAI Label 0.8.5's OHIF cannot do, and the smallest change of its files that mends it.

Every repair replaces text of one file and is written for the exact file that MONAI Label 0.8.5 ships. What takes
more than a line is in `static/fewshot.js`, which the repaired places call.
"""

from __future__ import annotations

from dataclasses import dataclass

INDEX = "index.html"
MODE = "2068.bundle.83ad900b6ad2110750da.js"
PANEL = "3933.bundle.92d0a0e9bc7e6861b7c9.js"
EXPORT = "7197.bundle.805c43530f838fa98d40.js"
SEGMENTS = "1185.bundle.63d4a7234e943a3bc2ab.js"

DIGESTS = {
    INDEX: "8836f8614ec3341f7a14d3dfe2119e3e05101c0207d4dc43e41d5e1d2b0ae74c",
    MODE: "cb1e700c82abfc4fe26b17fc5c56d858e034f8c71c8b41b34d16b10df6a762ad",
    PANEL: "7844f59159b8eda422079064b0bffa17d2b76aa025b054097ff4ae8bc3b55acd",
    EXPORT: "e13dc738ff027ee2e17b263ceb9b9928986ef21e9f587ff2edcbcad424c67272",
    SEGMENTS: "624859801344278ae628f44ac46c38ddfb52a03ce6b3ecf7df00e8bde0e999b6",
}
"""SHA-256 of the files that the repairs were written for."""


@dataclass(frozen=True)
class Repair:
    """One change of one file.

    Attributes:
        file: name in the viewer's folder.
        complaint: what a user meets without it.
        old: text that is replaced.
        new: text that takes its place.
        times: how often `old` occurs.
    """

    file: str
    complaint: str
    old: str
    new: str
    times: int = 1


REPAIRS = (
    Repair(
        INDEX,
        "The repairs below share a script.",
        '<script defer="defer" src="/ohif/app.bundle',
        '<script src="/ohif/fewshot.js"></script><script defer="defer" src="/ohif/app.bundle',
    ),
    Repair(
        MODE,
        "The MONAI Label mode has no segment list and no brush: its tools are set up, but neither listed nor shown.",
        "// toolbarService.addButtons(segmentationButtons);",
        "toolbarService.addButtons(window.fewshotOhif.paintButtons);",
    ),
    Repair(
        MODE,
        "The panel with the segment list is named and not shown.",
        "rightPanels: [monailabel.monaiLabel],",
        "rightPanels: [monailabel.monaiLabel, cornerstone.panelTool],",
    ),
    Repair(
        MODE,
        "The mode opens CT and MR only, though it shows any volume.",
        "valid: modalitiesArray.includes('CT') || modalitiesArray.includes('MR'),",
        "valid: modalitiesArray.some(modality => ['CT', 'MR', 'PT', 'NM', 'OT'].includes(modality)),",
    ),
    Repair(
        EXPORT,
        '"Export DICOM SEG" stores nothing and says nothing: it is called without a data source.',
        "await dataSource.store.dicom(naturalizedReport);",
        "dataSource = dataSource || extensionManager.getActiveDataSource()[0];\n"
        "      await dataSource.store.dicom(naturalizedReport);",
    ),
    Repair(
        EXPORT,
        "A SEG lies upside down: its geometry is sorted from head to foot, its pixels as the viewports count slices.",
        "const segImages = imageIds.map(imageId => esm.cache.getImage(imageId));",
        "const segImages = window.fewshotOhif.inOrderOfSeg(imageIds.map(imageId => esm.cache.getImage(imageId)));",
    ),
    Repair(
        PANEL,
        "The panel proposes port 8000, or the server of a former visit, and not the one that it came from.",
        "const _url = CookieUtils.getCookieString('MONAILABEL_SERVER_URL', 'http://' + "
        "window.location.host.split(':')[0] + ':8000/');",
        "const _url = window.location.origin + '/';",
    ),
    Repair(
        PANEL,
        "Counts, labels and the progress of a training stay as they were when the viewer connected.",
        "// await this.onInfo();",
        "window.fewshotOhif.opened(this);",
    ),
    Repair(
        PANEL,
        "Segments that were added or renamed by hand are unknown to the panel: a result paints over them.",
        "const segmentation = segmentations['0'];\n    const {\n      segments\n    } = segmentation.config;",
        "const segments = window.fewshotOhif.segments(segmentations);",
    ),
    Repair(
        PANEL,
        "The colour of a name that no table has is made of the sum of its letters: L1 and L2 cannot be told apart, and "
        "some are too dark to be seen.",
        "const color = getLabelColor(label);",
        "const color = getLabelColor(label, true, false) || window.fewshotOhif.colour(label);",
    ),
    Repair(
        SEGMENTS,
        "A click on a segment's name shows it only where it came as a SEG; small ones are not found in large volumes.",
        "const {\n      cachedStats\n    } = segments[segmentIndex];\n    if (!cachedStats) {\n      return;\n    }",
        "const {\n      cachedStats\n    } = segments[segmentIndex];\n"
        "    if (!cachedStats || !cachedStats.center) {\n"
        "      return window.fewshotOhif.middle(this.getLabelmapVolume(segmentationId), segmentIndex);\n    }",
    ),
    Repair(
        PANEL,
        "Connecting again makes the segmentation again.",
        "const volumeLoadObject = dist_esm.cache.getVolume('1');\n      if (!volumeLoadObject) {",
        "if (!this.props.servicesManager.services.segmentationService.getSegmentation('1')) {",
    ),
    Repair(
        PANEL,
        "A label of a result that has no segment is drawn without a name, and nothing can be stored any more.",
        "const currentSegs = currentSegmentsInfo(",
        "labels = window.fewshotOhif.present(labels);\n      const currentSegs = currentSegmentsInfo(",
    ),
    Repair(
        PANEL,
        "A label that was drawn cannot be submitted.",
        "onClick: this.onClickUpdateModel\n"
        "    }, this.state.training ? 'Stop Training' : 'Update Model')))))",
        "onClick: this.onClickUpdateModel\n"
        "    }, this.state.training ? 'Stop Training' : 'Update Model')), "
        '/*#__PURE__*/react.createElement("td", null, "\\xA0"), /*#__PURE__*/react.createElement("td", null, '
        '/*#__PURE__*/react.createElement("button", {\n'
        '      className: "actionInput",\n'
        "      style: {\n"
        "        backgroundColor: 'lightgray'\n"
        "      },\n"
        "      onClick: window.fewshotOhif.submit\n"
        '    }, "Submit Label")))))',
    ),
    Repair(
        PANEL,
        "The buttons for all this are folded away.",
        'name: "activelearning",\n      defaultValue: "activelearning"\n',
        'name: "activelearning",\n      defaultValue: "activelearning",\n      defaultChecked: true\n',
    ),
    Repair(
        PANEL,
        "A training that was started or stopped shows no progress and no end.",
        "this.setState({\n          training: !training\n        });",
        "window.fewshotOhif.follow();",
    ),
    Repair(
        PANEL,
        "A model that was never trained is shown as 100 % trained.",
        "const epochs = ts ? ts.total_time ? 0 : ts.epoch ? ts.epoch : 1 : 0;",
        "const epochs = ts && ts.epoch && !ts.total_time ? ts.epoch : 0;",
    ),
    Repair(
        PANEL,
        "How many studies are labelled is written in white on white.",
        "style: {\n        backgroundColor: 'white'\n      }\n    }, activelearning)",
        "style: window.fewshotOhif.bar(activelearning, '#2196f3')\n    }, activelearning)",
    ),
    Repair(
        PANEL,
        "The progress of a training is written in white on white.",
        "style: {\n        backgroundColor: 'white'\n      }\n    }, training)",
        "style: window.fewshotOhif.bar(training, '#ff9800')\n    }, training)",
    ),
    Repair(
        PANEL,
        "The accuracy of a training is written in white on white.",
        "style: {\n        backgroundColor: 'white'\n      }\n    }, accuracy)",
        "style: window.fewshotOhif.bar(accuracy, '#4caf50')\n    }, accuracy)",
    ),
    Repair(
        PANEL,
        "The list of strategies does nothing: Next Sample always asks for the first one.",
        "onChange: this.onChangeStrategy,",
        "onChange: evt => this.setState({\n        strategy: evt.target.value\n      }),",
    ),
    Repair(
        PANEL,
        "Next Sample opens an empty dialog, and then a dead page, when everything is labelled.",
        "message: 'Failed to Fetch Next Sample',\n"
        "          type: 'error',\n          duration: 5000\n        });\n      } else {",
        "message: window.fewshotOhif.reason(response, 'Failed to Fetch Next Sample'),\n"
        "          type: 'error',\n          duration: 5000\n        });\n"
        "      } else if (window.fewshotOhif.hasSample(response)) {",
    ),
    Repair(
        PANEL,
        "A refused training does not say why.",
        "message: 'Failed to ' + (training ? 'STOP' : 'RUN') + ' training',",
        "message: window.fewshotOhif.reason(response, 'Failed to ' + (training ? 'STOP' : 'RUN') + ' training'),",
    ),
    Repair(
        PANEL,
        "A refused segmentation does not say why.",
        "message: 'Failed to Run Segmentation',",
        "message: window.fewshotOhif.reason(response, 'Failed to Run Segmentation'),",
    ),
    Repair(
        PANEL,
        "A refused segmentation by points does not say why.",
        "message: 'Failed to Run Inference for Point Prompts',",
        "message: window.fewshotOhif.reason(response, 'Failed to Run Inference for Point Prompts'),",
    ),
    Repair(
        PANEL,
        "A server that refuses to connect does not say why.",
        "message: 'Failed to Connect to MONAI Label',",
        "message: window.fewshotOhif.reason(response, 'Failed to Connect to MONAI Label'),",
    ),
)
