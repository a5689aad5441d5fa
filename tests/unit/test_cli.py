"""The console script, as a person calls it: on files, with its exit codes."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fewshot import cli
from fewshot.baselines import BASELINES
from fewshot.dataset import Dataset
from fewshot.features import FeatureBank, load_backbone
from fewshot.options import method_options
from fewshot.pipeline import fit
from fewshot.volumes import read_labels, read_volume, write_labels
from tests.unit.conftest import blobs

NAMES = {"bright": 1, "dark": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four volumes with labels, as NIfTI files."""
    import nibabel as nib

    folder = tmp_path_factory.mktemp("dataset")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for seed in range(4):
        volume, labels = blobs(seed)
        nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / "images" / f"case_{seed}.nii.gz")
        write_labels(folder / "labels" / f"case_{seed}.nii.gz", labels, volume)
    (folder / "dataset.json").write_text(json.dumps({"labels": NAMES, "modality": "MR"}))
    return folder


@pytest.fixture(scope="module")
def fitted(dataset, tmp_path_factory):
    """A model file, for what comes after fitting."""
    folder = tmp_path_factory.mktemp("model")
    template = Dataset.open(dataset).template(Dataset.open(dataset).cases["case_0"])
    model = fit([template], adapter="basic", backbone=load_backbone("embedded"), bank=FeatureBank(folder))
    model.save(folder / "adapter.safetensors")
    return folder / "adapter.safetensors"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call the script's main with arguments; returns its exit code and what it printed on stdout and stderr."""

    def run(*arguments, capsys):
        monkeypatch.setattr(sys, "argv", ["fewshot", *map(str, arguments)])
        monkeypatch.setenv("FEWSHOT_BANK", str(tmp_path / "bank"))
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, capsys.readouterr()

    return run


def test_fit_then_predict(run, dataset, tmp_path, capsys):
    model, out = tmp_path / "adapter.safetensors", tmp_path / "found.nii.gz"
    code, _ = run(
        "fit",
        dataset,
        "--templates",
        "case_0",
        "--out",
        model,
        "--json",
        tmp_path / "fit.json",
        capsys=capsys,
    )
    assert code == 0
    assert json.loads((tmp_path / "fit.json").read_text())["labels"] == NAMES
    image = dataset / "images" / "case_1.nii.gz"
    code, said = run(
        "predict",
        image,
        "--model",
        model,
        "--out",
        out,
        "--picture",
        "--json",
        tmp_path / "p.json",
        capsys=capsys,
    )
    assert code == 0
    assert f"{out}: confidence bright " in said.out
    volume = read_volume(image)
    found, truth = read_labels(out, volume), blobs(1)[1]
    assert 2 * ((found == 1) & (truth == 1)).sum() / ((found == 1).sum() + (truth == 1).sum()) > 0.75
    assert (tmp_path / "found.overlay.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "p.json").read_text())[str(out)]
    assert set(told["confidence"]) == set(NAMES)


def test_several_images_go_into_a_folder(run, dataset, tmp_path, capsys):
    model = tmp_path / "adapter.safetensors"
    run("fit", dataset, "--templates", "case_0,case_1", "--adapter", "basic", "--out", model, capsys=capsys)
    images = [dataset / "images" / f"case_{seed}.nii.gz" for seed in (2, 3)]
    code, _ = run("predict", *images, "--model", model, "--out", tmp_path / "found", capsys=capsys)
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["case_2.nii.gz", "case_3.nii.gz"]


def test_an_image_is_never_overwritten(run, dataset, tmp_path, capsys):
    model, images = tmp_path / "adapter.safetensors", tmp_path / "images"
    run("fit", dataset, "--templates", "case_0", "--adapter", "basic", "--out", model, capsys=capsys)
    images.mkdir()
    image = images / "case_1.nii.gz"
    image.write_bytes((dataset / "images" / "case_1.nii.gz").read_bytes())
    before = image.read_bytes()
    for out in (images, image):
        code, said = run("predict", image, "--model", model, "--out", out, capsys=capsys)
        assert (code, "would overwrite" in said.err) == (1, True)
    assert image.read_bytes() == before
    found = tmp_path / "found.nii.gz"
    for arguments, expected in (([], 0), ([], 1), (["--overwrite"], 0)):
        code, said = run("predict", image, "--model", model, "--out", found, *arguments, capsys=capsys)
        assert (code, "--overwrite" in said.err) == (expected, bool(expected))


def test_values_are_those_of_the_dataset(run, dataset, tmp_path, capsys):
    model = tmp_path / "adapter.safetensors"
    run(
        "fit", dataset, "--templates", "case_0", "--adapter", "basic", "--labels", "dark", "--out", model,
        "--json", tmp_path / "fit.json", capsys=capsys,
    )  # fmt: skip
    assert json.loads((tmp_path / "fit.json").read_text())["labels"] == {"dark": 2}


def test_evaluate_writes_results_and_a_report(run, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(BASELINES, "copy", "tests.unit.evaluation.fakes:Copy")
    monkeypatch.setitem(BASELINES, "broken", "tests.unit.evaluation.fakes:Broken")
    out = tmp_path / "ev"
    arguments = [
        "evaluate", dataset, "--adapters", "basic,classification", "--baselines", "copy,broken", "--seeds", "0,1",
        "--shots", 1, "--template-slices", 3, "--set", "classification.epochs=2", "--set", "copy.shift=2", "--out", out,
    ]  # fmt: skip
    code, said = run(*arguments, capsys=capsys)
    assert code == 0
    results = json.loads((out / "results.json").read_text())
    assert {row["adapter"] for row in results["rows"]} == {"basic", "classification", "copy"}
    assert len(results["rows"]) == 2 * 3 * 3 * 2
    assert results["options"] == {
        "basic": {}, "classification": {"epochs": 2}, "copy": {"shift": 2}, "broken": {},
    }  # fmt: skip
    assert all(len(kept) == 3 for of in results["runs"] for kept in of["template_slices"].values())
    assert (out / "report.html").stat().st_size > 1000
    assert "classification" in said.out
    assert "seed-1 broken failed: Its weights are not here" in said.out.replace("\n", " ")


def test_evaluate_compares_baselines_alone(run, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(BASELINES, "copy", "tests.unit.evaluation.fakes:Copy")
    out = tmp_path / "ev"
    code, _ = run(
        "evaluate", dataset, "--adapters", "none", "--baselines", "copy", "--max-cases", 1, "--seed", 2,
        "--out", out, "--json", tmp_path / "numbers.json", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    results = json.loads((tmp_path / "numbers.json").read_text())
    assert (list(results["summary"]), results["seeds"]) == (["copy"], [2])


@pytest.mark.parametrize(
    ("asked", "refiner"),
    [
        (["walker"], {"refiner": "walker"}),
        (
            ["sam", "--sam", "random-tiny", "--prompts", "box", "--set", "quality=-0.9"],
            {"refiner": "sam", "sam": "random-tiny", "prompts": "box"},
        ),
        (["auto"], {}),
    ],
    ids=["walker", "sam", "auto"],
)
def test_predictions_are_refined(run, dataset, fitted, tmp_path, capsys, asked, refiner):
    """And both the line and the numbers say by what."""
    out, numbers = tmp_path / "found.nii.gz", tmp_path / "p.json"
    image = dataset / "images" / "case_1.nii.gz"
    code, said = run(
        "predict",
        image,
        "--model",
        fitted,
        "--out",
        out,
        "--json",
        numbers,
        "--refine",
        *asked,
        capsys=capsys,
    )
    assert code == 0, said.err
    told = json.loads(numbers.read_text())[str(out)]
    done = told["provenance"]["refine"]
    assert done | refiner == done
    assert told["timings"]["refine"] > 0
    assert f"s, refined by {done['refiner']})" in said.out
    if asked == ["auto"]:
        assert f"Refinement {done['refiner']}: " in said.err
        assert "at hand" in done["why"]
    if refiner.get("sam"):
        assert "random weights" in said.err
        lost = done["masks"] - done["taken"]
        assert (f"not taken for {lost} of {done['masks']}" in said.err.replace("\n", " ")) == (lost > 0)


def test_evaluate_refines_with_every_strategy(run, dataset, tmp_path, capsys):
    out = tmp_path / "ev"
    code, said = run(
        "evaluate", dataset, "--adapters", "basic", "--max-cases", 1, "--refine", "none,walker,sam", "--prompts",
        "box,random", "--sam", "random-tiny", "--set", "sam.points=3", "--set", "basic.threshold=0.4", "--out", out,
        capsys=capsys,
    )  # fmt: skip
    assert code == 0, said.err
    results = json.loads((out / "results.json").read_text())
    refinements = ["none", "walker", "sam:box", "sam:random"]
    assert list(results["refiners"]) == refinements
    assert len(results["rows"]) == len(refinements) * len(NAMES)
    assert (results["options"], results["failed"]) == ({"basic": {"threshold": 0.4}}, {})
    for name in ("sam:box", "sam:random"):
        known = results["refiners"][name]
        assert (known["sam"], known["options"]["points"]) == ("random-tiny", 3)
    records = {of["refine"]: of["refinement"] for of in results["timings"]}
    assert records["sam:box"]["encoded"] > 0 == records["sam:random"]["encoded"], "slices are encoded once"
    assert "basic+sam:random" in said.out
    assert "random weights" in said.out.replace("\n", " ")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert '<section id="prompting">' in page
    folders = {path.name for path in (out / "seed-0" / "predictions").iterdir()}
    assert folders == {"basic", "basic+walker", "basic+sam-box", "basic+sam-random"}


@pytest.mark.parametrize(
    ("pairs", "methods", "expected"),
    [
        (["contrastive.epochs=3", "basic.threshold=0.4"], ["basic", "contrastive"],
         {"contrastive": {"epochs": 3}, "basic": {"threshold": 0.4}}),
        (["threshold=0.4"], ["basic", "contrastive"], {"basic": {"threshold": 0.4}}),
        (["sam.points=3", "threshold=0.4"], ["basic", "sam"], {"sam": {"points": 3}, "basic": {"threshold": 0.4}}),
        (["points=3"], ["basic", "sam"], {"sam": {"points": 3}}),
        (["contrastive.hidden=[32, 32]"], ["contrastive"], {"contrastive": {"hidden": [32, 32]}}),
        (["hiden=3"], ["contrastive"], {"contrastive": {"hiden": 3}}),
        ([], ["basic"], {}),
    ],
)  # fmt: skip
def test_settings_name_their_method(pairs, methods, expected):
    assert method_options(pairs, methods) == expected


def test_extract_fills_the_bank_for_a_model(run, dataset, tmp_path, capsys):
    model = tmp_path / "adapter.safetensors"
    run("fit", dataset, "--templates", "case_0", "--adapter", "basic", "--out", model, capsys=capsys)
    code, said = run("extract", dataset, "--like", model, capsys=capsys)
    assert (code, said.out.split()[0]) == (0, "3"), "the template's features were there already"
    image = dataset / "images" / "case_3.nii.gz"
    run(
        "predict",
        image,
        "--model",
        model,
        "--out",
        tmp_path / "f.nii.gz",
        "--json",
        tmp_path / "p.json",
        capsys=capsys,
    )
    (told,) = json.loads((tmp_path / "p.json").read_text()).values()
    assert told["provenance"]["features_from_bank"]


def test_folders_of_the_server_are_no_series(run, dataset, tmp_path, capsys):
    """A folder that was served holds labels/, a dataset's labels/ then holds final/ and original/."""
    made = [dataset / "labels" / "final", dataset / "labels" / "original", dataset / "images" / "labels"]
    for folder in made:
        folder.mkdir()
    try:
        code, said = run("extract", dataset / "images", capsys=capsys)
        assert (code, "0 left out" in said.out) == (0, True)
        out = tmp_path / "ev"
        code, _ = run(
            "evaluate", dataset, "--adapters", "basic", "--max-cases", 1, "--out", out, capsys=capsys
        )
        assert code == 0
    finally:
        for folder in made:
            folder.rmdir()


def test_extract_names_what_it_cannot_read(run, dataset, tmp_path, capsys):
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "good.nii.gz").write_bytes((dataset / "images" / "case_0.nii.gz").read_bytes())
    (studies / "bad.nii.gz").write_bytes(b"junk")
    code, said = run("extract", studies, capsys=capsys)
    assert code == 0
    assert "1 computed, 0 already there, 1 left out" in said.out
    assert "bad.nii.gz" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "{data}", "--templates", "case_9", "--out", "m.safetensors"], "case_9"),
        (
            ["fit", "{data}", "--templates", "case_0", "--out", "m.safetensors", "--adapter", "magic"],
            "no adapter 'magic'",
        ),
        (
            ["fit", "{data}", "--templates", "case_0", "--out", "m.safetensors", "--set", "epochs"],
            "KEY=VALUE",
        ),
        (["fit", "{data}", "--templates", "case_0", "--out", "m.safetensors", "--labels", "liver"], "liver"),
        (
            ["predict", "{data}/images/case_0.nii.gz", "--model", "none", "--out", "x.nii.gz"],
            "no model file none",
        ),
        (["evaluate", "{data}/nothing", "--out", "x"], "nothing"),
        (["evaluate", "{data}", "--out", "{out}", "--refine", "magic"], "no refinement magic"),
        (
            ["evaluate", "{data}", "--out", "{out}", "--refine", "sam", "--prompts", "dots"],
            "no prompt strategy dots",
        ),
        (
            ["evaluate", "{data}", "--out", "{out}", "--refine", "none,walker", "--prompts", "box"],
            "takes none",
        ),
        (["evaluate", "{data}", "--out", "{out}", "--set", "sam.points=3"], "not evaluated here"),
        (
            [
                "evaluate",
                "{data}",
                "--out",
                "{out}",
                "--refine",
                "sam",
                "--set",
                "sam.magic=3",
                "--sam",
                "random-tiny",
            ],
            "sam has no option magic",
        ),
        (["evaluate", "{data}", "--out", "{out}", "--refine", "sam", "--sam", "nothing"], "no SAM 'nothing'"),
        (["evaluate", "{data}", "--out", "{out}", "--adapters", "none"], "no adapter or baseline"),
        (["evaluate", "{data}", "--out", "{out}", "--baselines", "magic"], "no baseline magic"),
        (["evaluate", "{data}", "--out", "{out}", "--seeds", "0;1"], "whole numbers"),
        (["evaluate", "{data}", "--out", "{out}", "--seeds", "0,1", "--seed", "2"], "not both"),
        (["evaluate", "{data}", "--out", "{out}", "--set", "unet.seconds=3"], "not evaluated here"),
        (["evaluate", "{data}", "--out", "{out}", "--set", "epochs=3"], "for which method"),
        (["evaluate", "{data}", "--out", "{out}", "--set", "basic.magic=3"], "no option magic"),
        (["extract", "{data}/nothing"], "no folder"),
        (["evaluate", "{data}", "--out", "{out}", "--plane", "up"], "no plane"),
        (["fit", "{data}", "--templates", "case_0", "--out", "{data}"], "is a folder"),
        (["fit", "{data}", "--templates", "case_0", "--out", "README.md"], "ends in .safetensors"),
        (["serve", "{data}/nothing"], "no studies folder"),
        (
            ["fit", "{data}", "--templates", "case_0", "--out", "m.safetensors", "--set", "epochs=0"],
            "Option epochs",
        ),
        (["evaluate", "{data}", "--out", "{data}/dataset.json"], "dataset.json"),
        (["evaluate", "{data}", "--out", "{out}", "--backbone", "nothing"], "no backbone"),
    ],
)
def test_expected_failures_are_one_sentence_and_exit_code_1(run, dataset, tmp_path, capsys, arguments, words):
    filled = [argument.format(data=dataset, out=tmp_path / "out") for argument in arguments]
    code, said = run(*filled, capsys=capsys)
    assert code == 1
    assert words in said.err
    assert "Traceback" not in said.err


def test_wrong_use_is_exit_code_2():
    assert CliRunner().invoke(cli.app, ["fit"]).exit_code == 2
    assert CliRunner().invoke(cli.app, ["nonsense"]).exit_code == 2


@pytest.mark.parametrize("command", ["demo", "serve", "extract", "fit", "predict", "evaluate", "info"])
def test_help_is_complete(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert command in shown.output


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--refine", "magic"], "no refinement magic"),
        (["--refine", "sam", "--prompts", "dots", "--sam", "random-tiny"], "dots"),
        (["--refine", "walker", "--prompts", "box"], "no option prompts"),
        (["--refine", "none", "--prompts", "box"], "add --refine"),
        (["--refine", "sam", "--sam", "no.pth"], "no.pth"),
        (["--refine", "sam2", "--sam", "random-tiny"], "needs a SAM 2 model"),
    ],
)
def test_a_refinement_that_cannot_be_done_is_refused_before_anything_is_predicted(
    run, dataset, fitted, tmp_path, capsys, asked, words
):
    out = tmp_path / "found.nii.gz"
    image = dataset / "images" / "case_1.nii.gz"
    code, said = run("predict", image, "--model", fitted, "--out", out, *asked, capsys=capsys)
    assert (code, out.exists()) == (1, False)
    assert words in said.err
    assert "Traceback" not in said.err


def test_info_lists_what_can_be_named(run, capsys):
    code, said = run("info", capsys=capsys)
    assert code == 0
    for name in (
        "contrastive", "references=100", "dinov2_vits14_reg", "embedded", "baseline registration",
        "refinement walker", "refinement sam: ", "points=10", "prompts kmeans", "sam sam_vit_b",
    ):  # fmt: skip
        assert name in said.out


def test_the_console_script_is_installed(dataset):
    """And answers quickly: nothing heavy is imported before a command needs it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fewshot.cli", "--help"], capture_output=True
    )
    assert done.returncode == 0
    assert b"evaluate" in done.stdout
    assert b"torch" not in done.stderr
