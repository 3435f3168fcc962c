"""Draw which visual tokens each strategy keeps, and what the model then answers, as one PNG.

python demos/compare_kept_tokens.py                                    # a bundled scene
python demos/compare_kept_tokens.py dog.jpg "Where is the dog?" --box 24 15 566 455
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from tokenprune.evals import kept_tokens
from tokenprune.evals.bundled_paths import MODEL, SCENES
from tokenprune.evals.configurations import configurations
from tokenprune.evals.loading import load_model
from tokenprune.evals.pictures import open_picture
from tokenprune.evals.styles import style_of
from tokenprune.evals.tasks.refcoco import RefCoco

STRATEGIES = "random", "grid", "fopru:mode=rank,layer=-2", "fopru:mode=row,layer=-2"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    model, processor = load_model(options.model)
    if options.image is None:
        sample = RefCoco("rec", "REC", None).load(SCENES, style=style_of(model.config, processor))[0]
        (picture,), options.question, options.box = sample.pictures(), sample.question, sample.box
    else:
        picture = open_picture(options.image)
    true_box = None
    if options.box is not None:
        x1, y1, x2, y2 = options.box
        true_box = x1 / picture.width, y1 / picture.height, x2 / picture.width, y2 / picture.height
    compared = [c for c in configurations(STRATEGIES, [options.keep_ratio]) if c.position_ids == "original"]
    mpl.use("Agg")
    figure, panels = plt.subplots(1, len(compared), figsize=(3.1 * len(compared), 4.9))
    figure.set_layout_engine("constrained", h_pad=0.14)
    for axes, configuration in zip(panels, compared, strict=True):
        kept_tokens.draw(axes, kept_tokens.look(model, processor, configuration, picture, options.question), true_box)
    figure.suptitle("\n".join(textwrap.wrap(options.question, 100)), fontsize=15)
    handles = [
        Patch(fill=False, edgecolor=color, linestyle=dashes, linewidth=2.5, label=name)
        for name, (color, dashes) in kept_tokens.STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=130)
    plt.close(figure)
    print(f"Written to {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("question", nargs="?", default="What is this?")
    parser.add_argument("--box", nargs=4, type=float, metavar=("X1", "Y1", "X2", "Y2"), help="the true box, in pixels")
    parser.add_argument("--model", default=str(MODEL), help="a folder or a Hugging Face name")
    parser.add_argument("--keep-ratio", type=float, default=0.25)
    parser.add_argument("--output", type=Path, default=Path("demo_output/kept_tokens.png"))
    return parser


if __name__ == "__main__":
    main()
