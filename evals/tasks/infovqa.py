"""InfographicVQA (https://arxiv.org/abs/2104.12756): questions about infographics, scored as in DocVQA.

It reads InfographicVQA of the Hub's lmms-lab/DocVQA, whose layout follows lmms-eval's task and was not checked against
the real files. The answers of `test` are not published. Prompt and metric are lmms-eval's, the metric checked by
running it.
"""

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.evals.tasks.base.task import Form, hub
from tokenprune.evals.tasks.docvqa import DocVqa


@dataclass(frozen=True)
class InfoVqa(DocVqa):
    """Average normalised Levenshtein similarity."""

    forms: ClassVar[tuple[Form, ...]] = hub("InfographicVQA")
