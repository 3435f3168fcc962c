"""The options that `tokenprune serve` passes on exist in vLLM."""

# pyright: reportMissingImports=false

from __future__ import annotations

from helpers.served.engine import needs_vllm

from tokenprune.evals.cli import build_parser
from tokenprune.evals.cli.serve import misspelt

pytestmark = needs_vllm


def test_no_option_of_vllms_is_taken_for_a_misspelt_one() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (commands,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    ours = {option for action in commands["serve"]._actions for option in action.option_strings}
    actions = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())._actions
    theirs = {option for action in actions for option in action.option_strings} - ours
    assert len(theirs) > 100
    assert {option: meant for option in theirs if (meant := misspelt(option, commands["serve"])) is not None} == {}
