"""docs/paper.md at tiny size: its own commands, from parquet to scores, and its own arithmetic."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from engine import sail
from pick_a_pic import CAPTIONS, write_parquet
from tiny_model import build_tiny_model
from tiny_scorers import build_aesthetic, build_clip

from sail.config import Optimisation
from sail.cost import MAX_LEARNED_JUDGED, evaluations_to_draw, evaluations_to_propose, evaluations_to_train
from sail.evaluating import subject_of
from sail.files import read_lines, sha256_file
from sail.model_ref import ModelRef
from sail.requests import ProposeRequest
from sail.rounds import train_request
from sail.runfolder import ADAPTER_FILE, RunFolder
from sail.settings import LoopSettings

TINY = {
    "import-pairs": ["--share", "0.5"],
    "loop": ["--steps", "1", "--prompts-per-round", "2", "--candidates", "3", "--rounds", "1"],
    "evaluate": [],
}
"""Options that come last, and so hold, to end in seconds."""


@pytest.fixture(scope="module")
def paper(root) -> str:
    return (root / "docs/paper.md").read_text(encoding="utf-8")


def commands(paper: str) -> dict[str, list[str]]:
    """Name -> arguments of the document's own commands, in its order."""
    found = re.findall(r"^python -m sail (\S+) (.*)$", paper, re.MULTILINE)
    return {name: shlex.split(arguments) for name, arguments in found}


@pytest.fixture(scope="module")
def done(paper, tmp_path_factory) -> Path:
    """A folder in which the document's commands were run in turn, on a model, pairs and scorers of random
    weights and pixels in the places that it names."""
    folder = tmp_path_factory.mktemp("paper")
    model = build_tiny_model(folder / "model", prediction_type="epsilon")
    build_clip(folder / "hpsv2")
    build_aesthetic(folder / "aesthetic")
    (folder / "pickapic").mkdir()
    write_parquet(folder / "pickapic/train-00000.parquet", rows=40, noise_seed=0, row_group_size=8)
    for number, style in enumerate(("anime", "concept-art", "paintings", "photo")):
        file = folder / f"hpdv2/benchmark/{style}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([f"{CAPTIONS[number]} on a\n{style}"]))
    (recipe,) = re.findall(r"^```python\n(.*?)^```", paper, re.MULTILINE | re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(recipe, {})
        for name, arguments in commands(paper).items():
            here = [*arguments, *TINY[name]]
            if "--revision" in here:
                at = here.index("--revision")
                del here[at : at + 2]
                here[here.index("--model") + 1] = str(model)
            if name == "evaluate":
                # PickScore's and CLIP's weights come from the hub, which is not here.
                here += ["--scorer-path", "pickscore=hpsv2", "--scorer-path", "clip=hpsv2"]
            result = sail(name, *here)
            assert result.exit_code == 0, (name, result.stderr)
    return folder


def test_the_documents_commands_lead_from_parquet_to_the_scores_of_every_judge(done):
    report = json.loads((done / "scores/scores.json").read_text())
    assert [one["scorer"] for one in report["scorers"]] == ["pickscore", "hpsv2", "clip", "aesthetic"]
    assert report["prompts"] == 4 and all(one["won"]["n"] == 4 for one in report["scorers"])
    current = json.loads((done / "aligned/result.json").read_text())
    assert report["sha256"] == current["rounds"][current["current"]]["sha256"]
    assert report["sampling"] == LoopSettings.paper().sampling.model_dump(mode="json")


def test_the_prompts_that_are_scored_are_hpdv2s_one_a_line(done):
    prompts = (done / "hpdv2.txt").read_text().splitlines()
    assert prompts[1] == f"{CAPTIONS[1]} on a concept-art"
    lines = read_lines(done / "scores/scores.jsonl")
    assert list(dict.fromkeys(line["prompt"] for line in lines)) == prompts


def test_round_1_learns_from_imported_pairs_and_its_own_with_the_papers_settings(done):
    run = RunFolder(done / "aligned/runs/0003-train")
    request, sources = run.request(), [pair.source for pair in run.pairs()]
    assert (request.loss.beta, request.optimisation.batch_pairs) == (5000, 128)
    assert request.scoring.average == "mean" and request.scoring.draws == 10
    assert request.mixup.self_fraction == 0.25 and request.parent_adapter is not None
    assert sources.count("self") == 2 and sources.count("human") == len(read_lines(done / "seed/pairs.jsonl"))


def test_a_loop_and_a_run_say_themselves_what_is_evaluated(done):
    run = RunFolder(done / "aligned/runs/0001-train")
    found, request = subject_of(run.path), run.request()
    assert (found.model, found.sampling) == (request.model, request.sampling)
    assert found.prompts == request.monitoring.prompts != ()
    assert sha256_file(found.adapter / ADAPTER_FILE) == run.result()["sha256"]
    assert found.trained_on == {pair.prompt for pair in run.pairs() if not pair.held_out}
    assert not set(found.prompts) & set(RunFolder(done / "aligned/runs/0002-propose").request().prompts)
    assert subject_of(done / "aligned").prompts == found.prompts
    whole = subject_of(done / "aligned")
    assert whole.adapter != found.adapter
    own = {
        pair.prompt for pair in RunFolder(done / "aligned/runs/0003-train").pairs() if pair.source == "self"
    }
    assert whole.trained_on == found.trained_on | own > found.trained_on


def test_a_loop_is_evaluated_wherever_its_folder_is_now(done, tmp_path):
    there = shutil.copytree(done / "aligned", tmp_path / "elsewhere")
    found, moved = subject_of(done / "aligned"), subject_of(there)
    assert moved.adapter.is_relative_to(there)
    assert (moved.prompts, moved.trained_on) == (found.prompts, found.trained_on)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("aligned/runs/0002-propose", "propose run in .* has no adapter"), ("refused", "no accepted round yet")],
)
def test_what_has_no_adapter_is_not_evaluated(done, target, sentence):
    refused = done / "refused"
    refused.mkdir(exist_ok=True)
    (refused / "loop.json").write_bytes((done / "aligned/loop.json").read_bytes())
    with pytest.raises(ValueError, match=sentence):
        subject_of(done / target)


def test_the_model_of_a_run_is_not_given_again(done):
    with pytest.raises(ValueError, match="Leave out --model"):
        subject_of(done / "aligned", model=ModelRef(source=str(done / "model")))


def test_rounds_propose_for_prompts_of_no_seed_pair_while_there_are_some(done):
    proposed = RunFolder(done / "aligned/runs/0002-propose").request().prompts
    of_seed_pairs = {pair["prompt"] for pair in read_lines(done / "seed/pairs.jsonl")}
    assert proposed and of_seed_pairs and not set(proposed) & of_seed_pairs


def test_the_cost_that_is_told_is_that_of_the_cost_model(paper):
    told = {
        stage: int(number.replace(",", ""))
        for stage, number in re.findall(r"^\| ([a-z][^|]*?) \| ([\d,]+) \|$", paper, re.MULTILINE)
    }
    steps = int(commands(paper)["loop"][commands(paper)["loop"].index("--steps") + 1])
    settings = LoopSettings.paper()
    settings = settings.model_copy(
        update={"optimisation": Optimisation(steps=steps, batch_pairs=settings.optimisation.batch_pairs)}
    )
    model, prompts = ModelRef(source="somewhere"), [f"prompt {number}" for number in range(20_000)]
    monitored = prompts[: settings.monitor_prompts]
    training = train_request(settings, model, number=0, parent=None, held_out_prompts=monitored, pairs=[])

    def propose(number: int) -> int:
        request = ProposeRequest(
            model=model,
            adapter="of the round before",
            prompts=prompts[: settings.prompts_in(number)],
            num_candidates=settings.num_candidates,
            sampling=settings.sampling,
            scoring=settings.scoring,
        )
        return evaluations_to_propose(request)

    train = evaluations_to_train(
        training, judged_pairs=511 + MAX_LEARNED_JUDGED, human_pairs=50_000, self_pairs=0
    )
    evaluate = 2 * 3_200 * evaluations_to_draw(settings.sampling)
    together = 4 * train + propose(1) + propose(2) + propose(3) + evaluate
    assert list(told.values()) == [train, propose(1), propose(2), evaluate, together]
    assert propose(2) == propose(3) and round(0.06 * 851_293) == 51_078
