"""Our prompts equal lmms-eval's, letter by letter. Skipped if it is not installed (`make test-peers`)."""

from pathlib import Path

import pytest
import yaml
from helpers.files.published import lmms, loaded_set, records

#: (task, lmms-eval's file, its function). Left out: MMBench, whose prompt is LLaVA's here; TextVQA and VizWiz, whose
#: questions keep their published small letters here; MMStar, which lacks a period there; RefCOCO, with the model's own.
PROMPTS = [
    ("vqav2", "vqav2/_default_template_vqav2_yaml", "vqav2_doc_to_text"),
    ("gqa", "gqa/gqa.yaml", "gqa_doc_to_text"),
    ("scienceqa", "scienceqa/scienceqa_img.yaml", "sqa_doc_to_text"),
    ("pope", "pope/pope.yaml", "pope_doc_to_text"),
    ("mme", "mme/mme.yaml", "mme_doc_to_text"),
    ("seedbench", "seedbench/seedbench.yaml", "seed_doc_to_text"),
    ("ai2d", "ai2d/ai2d.yaml", "ai2d_doc_to_text"),
    ("chartqa", "chartqa/chartqa.yaml", "chartqa_doc_to_text"),
    ("docvqa", "docvqa/_default_template_docvqa_yaml", "docvqa_doc_to_text"),
    ("xlrs", "xlrs/XLRS-lite.yaml", "xlrs_doc_to_text"),
]


@pytest.mark.parametrize(("name", "file", "function"), PROMPTS)
def test_prompts(tmp_path: Path, name: str, file: str, function: str) -> None:
    folder = Path(str(pytest.importorskip("lmms_eval").__file__)).parent / "tasks"
    task = lmms(f"{file.split('/')[0]}.{'mcq_utils' if name == 'xlrs' else 'utils'}")
    settings = yaml.load((folder / file).read_text(), Loader=Plain).get("lmms_eval_specific_kwargs")
    prompts = [question.text for question in loaded_set(tmp_path, name)]
    extra = [settings["default"]] if settings and name != "xlrs" else []
    docs = [record.content for record in records(tmp_path, "*_instructions/*" if name == "gqa" else "*")]
    docs = [doc for doc in docs if "image" not in doc or doc["image"]]
    assert prompts == [getattr(task, function)(doc, *extra) for doc in docs]


class Plain(yaml.SafeLoader):
    """Ignores the functions that lmms-eval's files refer to."""


Plain.add_constructor("!function", lambda loader, node: None)
