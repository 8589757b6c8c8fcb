"""Small evaluated runs (three methods, two seeds, three cases, scored by the package), and a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.evaluation.evaluate import run_evaluate
from duomod.evaluation.settings import EvaluateSettings

METHODS = ("supervised", "cps", "duomodnet")
CLASSES = ("background", "liver", "gallbladder", "adrenal")
CASES = ("a", "b", "c")
SPACING = (1.0, 1.5, 2.0)


def image_of(array: np.ndarray, path: Path) -> None:
    """Write an array (D, H, W) whose grid is an oblique-free LPS scan, as scanners give them."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((-20.0, 30.0, 5.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def truth_of(index: int) -> np.ndarray:
    """A liver, a gallbladder and, except in the last case, an adrenal."""
    labels = np.zeros((14, 20, 24), np.uint8)
    labels[3:10, 4:14, 3:12] = 1
    labels[5:8, 6:9, 14 + index : 18 + index] = 2
    if index < 2:
        labels[9:11, 15:17, 5:8] = 3
    return labels


def prediction_of(method: int, seed: int, truth: np.ndarray) -> np.ndarray:
    """The truth, worse the lower the method's number; the first method misses all adrenals."""
    labels = truth.copy()
    labels[:, 4 : 7 - method + seed][labels[:, 4 : 7 - method + seed] == 1] = 0
    if method == 0:
        labels[labels == 3] = 0
    return labels


def write_runs(root: Path, methods: tuple[str, ...] = METHODS, metrics: tuple[str, ...] = ("dice", "asd")) -> Path:
    """Write scans, truths, predictions, logs and result tables; return the folder of the methods."""
    root.mkdir(parents=True, exist_ok=True)
    spec = root / "toy.yaml"
    spec.write_text(f"name: toy\nclasses: [{', '.join(CLASSES)}]\ntail_classes: [gallbladder, adrenal]\n")
    rng = np.random.default_rng(0)
    for index, case in enumerate(CASES):
        scan = (rng.normal(0, 20, (14, 20, 24)) + 60 * (truth_of(index) > 0)).astype(np.int16)
        image_of(scan, root / "images" / f"{case}.nii.gz")
        image_of(truth_of(index), root / "labels" / f"{case}.nii.gz")
    for number, method in enumerate(methods):
        for seed in range(2):
            folder = root / "runs" / method / f"seed_{seed}"
            for index, case in enumerate(CASES):
                labels = prediction_of(number, seed, truth_of(index))
                image_of(labels, folder / "predictions" / f"{case}.nii.gz")
            scans = {case: str((root / "images" / f"{case}.nii.gz").resolve()) for case in CASES}
            (folder / "predictions" / "prediction.json").write_text(json.dumps({"settings": {}, "scans": scans}))
            (folder / "config.yaml").write_text(
                f"model: {method}\nseed: {seed}\nsplit:\n  labelled: [x, y]\nmethod:\n  strength: {number}\n"
            )
            (folder / "train_manifest.json").write_text(
                json.dumps({"steps": 40, "seconds": 90.0 + number, "best_validation_dice": 0.5 + number / 10})
            )
            lines = [{"step": s, "loss": 3.0 / (s + 1), "dafr_gain": 1.1} for s in range(0, 40, 10)]
            if method == "duomodnet":
                lines = [{**line, **{f"rlm_weight/{name}": 1.0 for name in CLASSES}} for line in lines]
            lines.append({"step": 39, "val_dice": 0.5 + number / 10})
            text = "\n".join(map(json.dumps, lines)) + '\n{"step": 40, "lo'
            (folder / "metrics.jsonl").write_text(text)
            run_evaluate(
                EvaluateSettings(
                    pred_path=folder / "predictions",
                    gt_path=root / "labels",
                    output_csv=folder / "result.csv",
                    dataset=str(spec),
                    metrics=metrics,
                )
            )
    return root / "runs"


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, labels and runs/<method>/seed_<n>; not to be changed."""
    root = tmp_path_factory.mktemp("study")
    write_runs(root)
    return root


@dataclass
class Browser:
    """A tab of a real Chromium, and what went wrong in it.

    Attributes:
        page: Playwright's page.
        errors: Console errors and uncaught exceptions.
        requests: Requests that left the disk and this computer.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> None:
        page = self.page
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._request(request.url))

    def _request(self, url: str) -> None:
        if not url.startswith(("file://", "http://127.0.0.1:", "data:", "blob:")):
            self.requests.append(url)


#: Software rendering: 3D surfaces without a graphics card. What starts with --disable- keeps Chromium off the network.
CHROMIUM = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium): no browser tests")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM))
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    found = Browser(page)
    found.watch()
    yield found
    page.close()
