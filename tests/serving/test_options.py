"""The options that `tokenprune serve` passes on exist in vLLM."""

# pyright: reportMissingImports=false

from __future__ import annotations

from helpers.served.engine import needs_vllm

from tokenprune.evals.cli import build_parser
from tokenprune.evals.cli.serve import misspelt

pytestmark = needs_vllm


def test_no_option_of_vllms_is_taken_for_a_misspelt_one() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (commands,) = (action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    ours = {option for action in commands["serve"]._actions for option in action.option_strings}
    actions = make_arg_parser(FlexibleArgumentParser())._actions
    theirs = {option for action in actions for option in action.option_strings} - ours
    assert {"--api-key", "--max-model-len"} < theirs
    assert {option: meant for option in theirs if (meant := misspelt(option, commands["serve"])) is not None} == {}
