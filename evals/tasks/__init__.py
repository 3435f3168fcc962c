"""The tasks, one file each. To add one, write a file and a line in _TASKS; README.md has the other steps."""

from tokenprune.errors import SettingError, unknown
from tokenprune.evals.tasks.activitynetqa import ActivityNetQa
from tokenprune.evals.tasks.ai2d import Ai2d
from tokenprune.evals.tasks.base.task import FileTask, Task
from tokenprune.evals.tasks.chartqa import ChartQa
from tokenprune.evals.tasks.docvqa import DocVqa
from tokenprune.evals.tasks.egoschema import EgoSchema
from tokenprune.evals.tasks.gqa import Gqa
from tokenprune.evals.tasks.hallusionbench import HallusionBench
from tokenprune.evals.tasks.infovqa import InfoVqa
from tokenprune.evals.tasks.longvideobench import LongVideoBench
from tokenprune.evals.tasks.lrsvqa import LrsVqa
from tokenprune.evals.tasks.mathvista import MathVista
from tokenprune.evals.tasks.mlvu import Mlvu
from tokenprune.evals.tasks.mmbench import MmBench
from tokenprune.evals.tasks.mme import Mme
from tokenprune.evals.tasks.mmmu import Mmmu
from tokenprune.evals.tasks.mmstar import MmStar
from tokenprune.evals.tasks.mvbench import MvBench
from tokenprune.evals.tasks.ocrbench import OcrBench
from tokenprune.evals.tasks.own import Own
from tokenprune.evals.tasks.pope import Pope
from tokenprune.evals.tasks.refcoco import RefCoco
from tokenprune.evals.tasks.scienceqa import ScienceQa
from tokenprune.evals.tasks.screenspot import ScreenSpot
from tokenprune.evals.tasks.seedbench import SeedBench
from tokenprune.evals.tasks.textvqa import TextVqa
from tokenprune.evals.tasks.videomme import VideoMme
from tokenprune.evals.tasks.visual7w import Visual7w
from tokenprune.evals.tasks.vizwiz import VizWiz
from tokenprune.evals.tasks.vqav2 import Vqav2
from tokenprune.evals.tasks.xlrs import Xlrs
from tokenprune.user_classes import UserClasses

_TASKS = (
    Own("own", "own questions"),
    RefCoco("rec", "REC", None),
    RefCoco("refcoco", "RefCOCO", "unc"),
    RefCoco("refcoco-google", "RefCOCO (Google)", "google"),
    RefCoco("refcoco+", "RefCOCO+", "unc"),
    RefCoco("refcocog", "RefCOCOg", "umd"),
    RefCoco("refcocog-google", "RefCOCOg (Google)", "google"),
    Visual7w("visual7w", "Visual7W pointing"),
    Vqav2("vqa", "VQA"),
    Vqav2("vqav2", "VQAv2"),
    Gqa("gqa", "GQA"),
    VizWiz("vizwiz", "VizWiz"),
    TextVqa("textvqa", "TextVQA"),
    ScienceQa("scienceqa", "ScienceQA-IMG"),
    Pope("pope", "POPE"),
    MmBench("mmbench", "MMBench"),
    Mme("mme", "MME"),
    SeedBench("seedbench", "SEED-Bench"),
    Ai2d("ai2d", "AI2D"),
    ChartQa("chartqa", "ChartQA"),
    DocVqa("docvqa", "DocVQA"),
    InfoVqa("infovqa", "InfoVQA"),
    OcrBench("ocrbench", "OCRBench"),
    HallusionBench("hallusionbench", "HallusionBench"),
    MmStar("mmstar", "MMStar"),
    Mmmu("mmmu", "MMMU"),
    MathVista("mathvista", "MathVista"),
    ScreenSpot("screenspot", "ScreenSpot"),
    ScreenSpot("screenspot-v2", "ScreenSpot-v2"),
    Xlrs("xlrs", "XLRS-Bench"),
    LrsVqa("lrsvqa", "LRS-VQA"),
    VideoMme("videomme", "Video-MME"),
    MvBench("mvbench", "MVBench"),
    Mlvu("mlvu", "MLVU"),
    LongVideoBench("longvideobench", "LongVideoBench"),
    EgoSchema("egoschema", "EgoSchema"),
    ActivityNetQa("activitynetqa", "ActivityNet-QA"),
    ActivityNetQa("videoqa", "Video QA"),
)

#: Tasks by name. `own` reads a user's own questions. `rec`, `vqa` and `videoqa` read any set in the file formats of
#: RefCOCO, VQAv2 and ActivityNet-QA, such as the bundled scenes and clips. `find_task` adds a user's own.
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}

_CLASSES = UserClasses("task", Task, f"a subclass of {Task.__module__}.Task. Derive it from FileTask, beside it.")


def find_task(name: str) -> Task:
    """Return a task by its name, or by its class, written `my_package.my_module:MyTask`. SettingError, which says what
    to do, if there is none."""
    if ":" in name and name not in TASKS:
        cls = _CLASSES.find(name)
        for attribute in ("metric", "forms") if issubclass(cls, FileTask) else ("metric",):
            if not hasattr(cls, attribute):
                raise SettingError(f"task {name!r}: {cls.__name__} has no {attribute}. Define it in the class")
        try:
            TASKS[name] = cls(name, cls.__name__)
        except TypeError as error:  # an abstract method, or a field without a default
            raise SettingError(f"task {name!r}: {cls.__name__}(name, title) failed: {error}") from error
    if name not in TASKS:
        said = unknown("task", name, TASKS)
        advice = "" if "Did you mean" in said else " A task of your own is written my_module:MyTask."
        raise SettingError(said + advice)
    return TASKS[name]
