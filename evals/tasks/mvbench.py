"""MVBench (https://arxiv.org/abs/2311.17005): multiple choice about short videos, in twenty temporal tasks.

It reads the Hub's OpenGVLab/MVBench as its authors publish it: `json/TASK.json`, and the videos, extracted from the
archives, in `video/`, in the folders that their notebook names. Where a record has `start` and `end`, the notebook
shows that part only, and so does this; the videos of episodic reasoning are folders of frames, three per second. NTU
RGB+D's videos must be requested from their owners. The layout follows the repository and the notebook and was not
checked against the real files. The prompt is lmms-eval's, which has LLaVA-1.5's instruction (checked by reading it);
the authors' own continues into the answer. Letters are read by VLMEvalKit's rules.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.images import StoredImage
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import format_options, infer_letter, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, mean_of_categories, of_each_category
from tokenprune.evals.tasks.base.video import VideoChoice, find_frames, frames_read

#: Task -> the folder of its videos.
FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}
FRAMES, FPS = "episodic_reasoning", 3.0


def _published(path: Path) -> list[Record]:
    if path.stem not in FOLDERS:
        raise DataError(f"{path}: not one of MVBench's tasks; remove the file, or name it {path.parent}/TASK.json")
    return [record.with_fields(task=path.stem, number=number) for number, record in enumerate(json_records(path))]


@dataclass(frozen=True)
class MvBench(FileTask[VideoChoice]):
    """Accuracy over questions, the mean of the tasks' accuracies, and each of them.

    The published score is the mean; with all 200 questions of each task, both are the same.
    """

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("json/*.json",), _published),)

    def question(self, record: Record, folder: Path, style: Style) -> VideoChoice:
        candidates, answer = record.texts("candidates"), record.text("answer")
        if answer not in candidates:
            raise DataError(f"{record.where}: answer {answer!r} is none of the candidates; correct the file")
        options, task = lettered(candidates), record.text("task")
        bound = record.has("start") and record.has("end")
        return VideoChoice(
            task=self.name,
            id=f"{self.name}-{task}-{record.integer('number')}",
            images=(self._video(record, folder, task),),
            text=style.choice(record.text("question"), format_options(options)),
            category=task,
            options=options,
            letter=list(options)[candidates.index(answer)],
            read=infer_letter,
            n_frames=frames_read(),
            start=record.number("start") if bound else 0.0,
            end=record.number("end") if bound else None,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        each = {task.replace("_", " "): Metric.of(of_each[task]) for task in sorted(of_each)}
        return super().metrics(answered) | {"mean of tasks": mean_of_categories(answered)} | each

    def _video(self, record: Record, folder: Path, task: str) -> StoredImage:
        name = record.text("video")
        if task == FRAMES:
            return find_frames(record, folder, f"video/{FOLDERS[task]}/{name}", FPS)
        # Charades and CLEVRER come in an archive with one more folder.
        return record.find_video(folder, f"video/{FOLDERS[task]}/{name}", f"video/data0613/{FOLDERS[task]}/{name}")
