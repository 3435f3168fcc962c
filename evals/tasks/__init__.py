"""The tasks, one file each. To add one: a file, and a line in TASKS."""

from tokenprune.evals.task import Task
from tokenprune.evals.tasks.refcoco import RefCoco
from tokenprune.evals.tasks.vqav2 import Vqav2

_TASKS = (
    RefCoco("rec", "REC", None),
    RefCoco("refcoco", "RefCOCO", "unc"),
    RefCoco("refcoco-google", "RefCOCO (Google)", "google"),
    RefCoco("refcoco+", "RefCOCO+", "unc"),
    RefCoco("refcocog", "RefCOCOg", "umd"),
    RefCoco("refcocog-google", "RefCOCOg (Google)", "google"),
    Vqav2("vqa", "VQA"),
    Vqav2("vqav2", "VQAv2"),
)

#: By name. `rec` and `vqa` are any set in RefCOCO's and in VQAv2's file formats, such as the bundled scenes.
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
