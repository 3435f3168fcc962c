"""Compare what FastVID, V-CAST and DyCoke keep with the authors' code on the same random videos.

    python evals/dev/peers/videos.py FASTVID VCAST DYCOKE

Each argument is a clone of the authors' code at the commit named in evals/results/peers.md. Only the code that selects
is taken from it. FastVID's is part of a language model's `forward`: the statements between its two rows of hashes.
tests/serving compares EVS and VidCom2 with vLLM's.
"""

import argparse
import ast
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tokenprune import VCAST, DyCokeTTM, FastVID
from tokenprune.evals.dev.peers.functions import source_of, taken
from tokenprune.strategies.shared.shares import best_of_frames
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

N_FRAMES, ROWS, COLUMNS, WIDTH, DRAWS = 16, 14, 14, 64, 16
N_PLACES = ROWS * COLUMNS


class Compared(NamedTuple):
    """Their kept indices and ours, the largest difference between features, and a note on the draw."""

    theirs: list[int]
    ours: list[int]
    difference: float = 0.0
    note: str = ""


def video(seed: int) -> VisualTokens:
    """Return scenes of a few frames, each a little different from the one before, and random attention."""
    torch.manual_seed(seed)
    cuts = torch.rand(N_FRAMES) < 0.2
    frames = [torch.randn(N_PLACES, WIDTH) + 1]
    for cut in cuts[1:]:
        step = torch.randn(N_PLACES, WIDTH)
        frames.append(step + 1 if cut else frames[-1] + 0.2 * step)
    layout = Layout(((N_FRAMES, ROWS, COLUMNS),), N_FRAMES)
    queries, keys = torch.randn(2, N_FRAMES, 2, N_PLACES, 8)
    attention = VisionAttention(queries, keys, 1.0, 0, layout)
    return VisualTokens(torch.cat(frames), layout, 0, {"vision_attention": attention})


def fastvid(repository: str, seed: int) -> Compared:
    """Both get the mean features of each frame, and the attention that each token receives."""
    path = "fastvid_llavaonevision/LLaVA-NeXT/llava/model/language_model/modeling_qwen2.py"
    lines = source_of(repository, path).splitlines()
    begin, end = (number for number, line in enumerate(lines) if line.strip().startswith("#" * 30))
    block = ast.parse("if True:\n" + "\n".join(lines[begin:end])).body[0]
    tokens, text = video(seed), 5
    frames = tokens.features.view(N_FRAMES, N_PLACES, WIDTH)
    settings = FastVID(keep_ratio=0.155)  # 30 tokens a frame, 12 of them contextual: divides evenly among anchors
    model = SimpleNamespace(
        frame_num=N_FRAMES,
        video_token_len=N_FRAMES * N_PLACES,
        video_start_idx=text,
        frame_attn_weights=tokens.vision_attention.received(),
        frame_global_features=frames.mean(1),
        fastvid_retention_ratio=settings.keep_ratio,
        fastvid_DySeg_c=settings.segments,
        fastvid_DySeg_tau=settings.threshold,
        fastvid_STPrune_d=settings.contextual,
        fastvid_DTM_p=settings.step,
        fastvid_DTM_beta=settings.beta,
    )
    whole = torch.cat([torch.zeros(text, WIDTH), tokens.features, torch.zeros(text, WIDTH)])[None]
    rotary = torch.zeros(1, whole.shape[1], 1)
    space = {"self": model, "torch": torch, "F": functional, "hidden_states": whole, "causal_mask": None}
    space.update(seq_length=whole.shape[1], position_embeddings=(rotary, rotary), eval_logger=None)
    exec(compile(ast.Module([block], []), path, "exec"), space)
    theirs = space["keep_indexs"][text:-text] - text
    selection = FastVID(keep=len(theirs)).select(tokens)
    if theirs.tolist() != selection.kept.tolist() or selection.merged is None:
        return Compared(theirs.tolist(), selection.kept.tolist())
    features = selection.merged.apply(tokens.features, selection.kept)
    far = float((features - space["hidden_states"][0, text:-text]).abs().max())
    return Compared(theirs.tolist(), selection.kept.tolist(), far)


def vcast(repository: str, seed: int) -> Compared:
    """The note says how many tokens, in how many frames, they give to one frame and we to several. Apart from those,
    both must keep the same tokens, so ours is run again with their numbers per frame."""
    names = "_compute_curvature", "_allocate_budget_per_frame", "_v_cast_compress_frames"
    given = {"List": list, "Any": Any, "DEFAULT_BUDGET_TEMP": 0.7, "DEFAULT_RETAIN_RATIO": 0.25}
    space = taken(repository, "compressor/v_cast/modeling_qwen3_vl_v_cast.py", *names, **given)
    tokens = video(seed)
    frames = tokens.features.view(N_FRAMES, N_PLACES, WIDTH)
    theirs: Tensor = space["_v_cast_compress_frames"](frames, [], (0.25, 0.1)[seed % 2], 1)[2]
    selection = VCAST(keep=len(theirs)).select(tokens)
    assert selection.scores is not None
    counts = (theirs // N_PLACES).bincount(minlength=N_FRAMES)
    moved = (counts - (selection.kept // N_PLACES).bincount(minlength=N_FRAMES)).clamp(min=0)
    same_counts = best_of_frames(selection.scores.view(N_FRAMES, N_PLACES), counts).flatten().nonzero()[:, 0]
    return Compared(theirs.tolist(), same_counts.tolist(), note=f"{int(moved.sum())} in {int((moved > 0).sum())}")


def dycoke(repository: str, seed: int) -> Compared:
    """Compares all but the third frame of the last window, which they never prune."""
    space = taken(repository, "llava/model/llava_arch.py", "dycole_ttm")
    tokens = video(seed)
    kept_features = space["dycole_ttm"](tokens.features, N_PLACES, 0.7)
    index = {float(value): number for number, value in enumerate(tokens.features[:, 0])}
    theirs = sorted(index[float(value)] for value in kept_features[:, 0])
    share = int((1 - 0.7) * N_PLACES)
    n_windows = N_FRAMES // 4
    ours = DyCokeTTM(keep=n_windows * (N_PLACES + 3 * share)).select(tokens).kept.tolist()
    without = [[place for place in kept if place // N_PLACES != N_FRAMES - 2] for kept in (theirs, ours)]
    return Compared(without[0], without[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = {"fastvid": fastvid, "vcast": vcast, "dycoke": dycoke}
    for name in peers:
        parser.add_argument(name, help="the authors' repository")
    options = parser.parse_args()
    table = Table("strategy", "draws", "kept", "kept the same", "largest difference of features", "given to one frame")
    for name, compared in peers.items():
        runs = [compared(getattr(options, name), seed) for seed in range(DRAWS)]
        same = sum(run.theirs == run.ours for run in runs)
        kept = ", ".join(map(str, sorted({len(run.theirs) for run in runs})))
        far = max(run.difference for run in runs)
        notes = ", ".join(run.note for run in runs if run.note)
        table.add_row(name, str(DRAWS), kept, f"{same} of {DRAWS}", f"{far:.1e}", notes)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
