"""OHIF in a headless Chromium, with the hands of an annotator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
PATIENCE = 120_000
"""Milliseconds: a busy machine draws three viewports slowly."""

VOXELS = """() => {
    const all = window.services.segmentationService.getLabelmapVolume('1').voxelManager.getCompleteScalarDataArray();
    const drawn = [];
    all.forEach((value, index) => value && drawn.push(index, value));
    return drawn;
}"""
SEGMENTS = """() => Object.values(
    window.services.segmentationService.getSegmentation('1').segments).map(s => [s.segmentIndex, s.label])"""
COLOURS = """() => {
    const service = window.services.segmentationService;
    const shown = {};
    for (const viewport of window.services.viewportGridService.getState().viewports.keys()) {
        shown[viewport] = {};
        for (const segment of Object.values(service.getSegmentation('1').segments)) {
            shown[viewport][segment.label] = Array.from(service.getSegmentColor(viewport, '1', segment.segmentIndex));
        }
    }
    return shown;
}"""


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser) -> Iterator[Page]:
    """A page of somebody whom the browser does not know yet."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.route("**/fonts.g*/**", lambda route: route.abort())  # there is no internet
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())
    try:
        yield page
    finally:
        context.close()


class Ohif:
    """One annotator at OHIF's MONAI Label mode.

    Args:
        page: the browser's page.
        server: address of the MONAI Label server.
        shots: where screenshots go.
    """

    def __init__(self, page: Page, server: str, shots: Path) -> None:
        self.page, self.server, self.shots = page, server.rstrip("/"), shots
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self._note(said.type, said.text))

    def open(self, study: str) -> None:
        """Open a study in the MONAI Label mode and wait until it is drawn."""
        self.page.goto(
            f"{self.server}/ohif/monai-label?StudyInstanceUIDs={study}", wait_until="domcontentloaded"
        )
        self.page.locator("#monailabelServerURL").wait_for()
        self.hide_disclaimer()
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('[data-cy=\"viewport-overlay-bottom-right\"]')]"
            ".filter(e => /\\d+\\/\\d+/.test(e.innerText)).length >= 3"
        )

    def _note(self, kind: str, text: str) -> None:
        """Keep errors; that something could not be loaded is one only where it was needed, and then it is seen."""
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.errors.append(text)

    def hide_disclaimer(self) -> None:
        """OHIF says once that it is for research."""
        button = self.page.get_by_text("Confirm and Hide")
        if button.count():
            button.click()

    def connect(self) -> None:
        """Press the button beside the server's address, which the panel proposes itself."""
        assert self.page.locator("#monailabelServerURL").input_value() == f"{self.server}/"
        self.page.locator(".settingsTable button.actionButton").click()
        self.page.get_by_text("Options / Configurations").first.wait_for()
        self.page.wait_for_function("() => window.services.segmentationService.getSegmentation('1')")
        self.page.wait_for_timeout(2500)  # the panel colours its segments after a second, and we after it
        self.hide_disclaimer()

    def show_panel(self) -> None:
        self.page.locator('[data-cy="monailabel-btn"]').click()
        self.page.get_by_text("Options / Configurations").first.wait_for()

    def show_tools(self) -> None:
        self.page.locator('[data-cy="panelSegmentationWithTools-btn"]').click()
        self.page.locator('[data-cy="Brush"]').wait_for()

    def brush(self, radius_mm: float) -> None:
        self.page.locator('[data-cy="Brush"]').click()
        self.page.evaluate(
            "([size]) => window.commandsManager.runCommand('setBrushSize', {toolNames: ['CircularBrush'], value: size})",
            [radius_mm],
        )

    def select_segment(self, label: str) -> None:
        self.page.locator('[data-cy="data-row"]', has_text=label).click()

    def add_segment(self) -> None:
        self.page.get_by_text("Add Segment", exact=True).click()

    def rename_segment(self, number: int, label: str) -> None:
        """Give the n-th segment a name, through its row's menu."""
        row = self.page.locator('[data-cy="data-row"]').nth(number - 1)
        row.hover()
        row.locator("button").last.click()
        self.page.get_by_role("menuitem", name="Rename").click()
        self.page.locator("input[type=text], input:not([type])").last.fill(label)
        self.page.get_by_text("Save", exact=True).last.click()
        self.page.locator('[data-cy="data-row"]', has_text=label).wait_for()

    def scroll_to(self, index: int, depth: int) -> None:
        """Show a slice of the image's third axis in the axial viewport, which counts from head to foot."""
        self.page.evaluate(
            """([index]) => {
                const ids = [...window.services.viewportGridService.getState().viewports.keys()];
                const view = window.services.cornerstoneViewportService.getCornerstoneViewport(ids[0]);
                window.cornerstone.utilities.jumpToSlice(view.element, {imageIndex: index});
            }""",
            [depth - 1 - index],
        )
        self.page.wait_for_timeout(500)

    def shown_slices(self) -> list[int]:
        """The slice of each viewport."""
        return list(
            self.page.evaluate(
                """() => [...window.services.viewportGridService.getState().viewports.keys()].map(id =>
                    window.services.cornerstoneViewportService.getCornerstoneViewport(id).getSliceIndex())"""
            )
        )

    def canvas_of(self, index: tuple[int, int, int]) -> tuple[float, float]:
        """Where a voxel of the image is on the page, in the axial viewport."""
        x, y = self.page.evaluate(
            """([index]) => {
                const ids = [...window.services.viewportGridService.getState().viewports.keys()];
                const view = window.services.cornerstoneViewportService.getCornerstoneViewport(ids[0]);
                const volume = window.cornerstone.cache.getVolume(view.getVolumeId());
                const world = volume.imageData.indexToWorld(index);
                const [x, y] = view.worldToCanvas(world);
                const box = view.element.getBoundingClientRect();
                return [box.x + x, box.y + y];
            }""",
            [list(index)],
        )
        return float(x), float(y)

    def stroke(self, points: list[tuple[float, float]]) -> None:
        """Drag the mouse."""
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=3)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)

    def submit(self) -> str:
        """Press Submit Label; returns what the viewer says when it is done."""
        self.page.get_by_role("button", name="Submit Label").click()
        said = self.page.get_by_text("studies are labelled")
        said.last.wait_for()
        return said.last.inner_text()

    def export(self, name: str) -> None:
        """Export DICOM SEG, in the menu of the segment list."""
        entry = self.page.get_by_role("menuitem", name="Export & Download")
        # the menu's button stands left of the list of segmentations and has no name
        self.page.locator('button[aria-haspopup="menu"]:left-of(button[role=combobox])').first.click()
        entry.hover()
        entry.press("ArrowRight")
        self.page.get_by_role("menuitem", name="Export DICOM SEG").click()
        self.page.get_by_text("Enter the report name").wait_for()
        self.page.locator("input[type=text], input:not([type])").last.fill(name)
        self.page.get_by_text("Save", exact=True).last.click()

    def run(self, model: str) -> None:
        """Auto-segmentation with a model."""
        tab = self.page.locator('.tab:has(label:text-is("Auto-Segmentation"))')
        tab.locator("select.selectBox").select_option(model)
        tab.locator('button[title="Run Segmentation"]').click()
        self.page.get_by_text("Running Segmentation - Successful").wait_for()
        self.page.wait_for_timeout(1500)

    def voxels(self, shape: tuple[int, int, int]) -> np.ndarray:
        """The viewer's label map [X, Y, Z], in its own segment numbers."""
        drawn = np.array(self.page.evaluate(VOXELS), np.int64).reshape(-1, 2)
        flat = np.zeros(int(np.prod(shape)), np.uint8)
        flat[drawn[:, 0]] = drawn[:, 1]
        return flat.reshape(shape[::-1]).transpose(2, 1, 0)

    def grey_values(self, voxels: np.ndarray) -> np.ndarray:
        """What the viewer has for some voxels [N, 3] of the image, once it has all of it."""
        shown = """([voxels]) => {
            const ids = [...window.services.viewportGridService.getState().viewports.keys()];
            const view = window.services.cornerstoneViewportService.getCornerstoneViewport(ids[0]);
            const volume = window.cornerstone.cache.getVolume(view.getVolumeId());
            if (!volume.loadStatus.loaded) {
                return null;
            }
            const [width, height] = volume.dimensions;
            const all = volume.voxelManager.getCompleteScalarDataArray();
            return voxels.map(([x, y, z]) => all[x + width * (y + height * z)]);
        }"""
        found = self.page.wait_for_function(shown, arg=[voxels.tolist()])
        return np.array(found.json_value())

    def segments(self) -> dict[str, int]:
        """Label -> number in the viewer."""
        return {label: index for index, label in self.page.evaluate(SEGMENTS)}

    def active_segment(self) -> str:
        """The label that the brush paints."""
        return str(
            self.page.evaluate(
                """() => Object.values(window.services.segmentationService.getSegmentation('1').segments)
                    .find(segment => segment.active).label"""
            )
        )

    def colours(self) -> dict[str, dict[str, list[int]]]:
        """Viewport -> label -> RGBA."""
        return dict(self.page.evaluate(COLOURS))

    def shot(self, name: str) -> Path:
        path = self.shots / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(800)  # messages slide in
        self.page.screenshot(path=path)
        return path
