"""`tokenprune explain`: what each strategy keeps of one image or video, and the answer to one question."""

from argparse import ArgumentParser, Namespace
from typing import Any

from tokenprune.evals.arguments import options as shared
from tokenprune.evals.arguments.parser import a_path
from tokenprune.evals.defaults import DEFAULT_KEEP_RATIOS, EXPLAINED_STRATEGIES, FRAMES
from tokenprune.evals.defaults import EXPLAINED_OF_VIDEOS as OF_VIDEOS

EXTRA = "evals"


def add_options(parser: ArgumentParser) -> None:
    shared.add_image(parser)
    default = f"{' '.join(EXPLAINED_STRATEGIES)}, for a video {' '.join(OF_VIDEOS)}, if the model supports them"
    shared.add_option(parser, "strategy", shared.strategies(f" (default: {default})"), default=())
    shared.add_option(parser, "keep_ratio", shared.keep_ratios(), default=DEFAULT_KEEP_RATIOS)
    shared.add_option(parser, "position_ids", shared.position_ids(), default=None)
    shared.add_box(parser)
    shared.add_option(parser, "model", shared.MODEL)
    shared.add_dtype(parser)
    shared.add_option(parser, "max_image_pixels", shared.PIXELS)
    shared.add_option(parser, "frames", shared.FRAMES_READ, default=None)
    shared.add_rounds(parser, 3)
    parser.add_argument(
        "--output",
        type=a_path,
        metavar="FILE",
        help="PNG file that shows what was kept and why; of a video, by frame",
    )
    parser.add_argument("--gif", type=a_path, metavar="FILE", help="animated GIF that shows what was kept of a video")
    parser.add_argument(
        "--html",
        type=a_path,
        metavar="FILE",
        help="page with a slider for the keep ratio; asks the question at every stop, with both kinds of position IDs",
    )


def run(options: Namespace) -> None:
    """Ask one question about one image or video, unpruned and with each strategy.

    Prints the answers, which visual tokens were kept, and what that saved.

      tokenprune explain cup.jpg "Where is the cup?" --strategy grid fopru --keep-ratio 0.25 --output cup.png
      tokenprune explain cup.mp4 "When is the cup lifted?" --frames 16 --keep-ratio 0.25 --output cup.png --gif cup.gif
    """
    from dataclasses import replace

    from tokenprune.evals.cli.output import console
    from tokenprune.evals.explain import filmstrip, fonts, page, sheet
    from tokenprune.evals.explain.explain import explain
    from tokenprune.evals.explain.table import table
    from tokenprune.evals.models.loading import load_model, public_name
    from tokenprune.evals.models.prompt_styles import style_of, unknown_boxes
    from tokenprune.evals.models.video_prompts import adapter_for_clips
    from tokenprune.evals.reading.videos import is_video
    from tokenprune.evals.run.setups import Pruned, possible, pruned_setups

    screen, of_video = console(140), is_video(options.image)
    _check(options, of_video)
    image = _read(options, of_video, screen)
    strategies = options.strategy or (OF_VIDEOS if of_video else EXPLAINED_STRATEGIES)
    shown = pruned_setups(strategies, options.keep_ratio, options.position_ids)
    model, processor = load_model(options.model, options.dtype)
    assumed = style_of(model.config, processor).assumed_for
    if options.box is not None and assumed:
        screen.print(unknown_boxes(assumed, "LLaVA's format is assumed, and a box in another one is not found"))
    if not options.strategy:
        adapter = adapter_for_clips(model, processor) if of_video else None

        def check(setup: Pruned) -> None:
            with replace(setup, adapter=adapter).patched(model):
                pass

        strategies = possible(strategies, check, screen.print)
        shown = pruned_setups(strategies, options.keep_ratio, options.position_ids)
    asked = shown if options.html is None else page.slider(model, strategies, options.keep_ratio)
    explanation = explain(
        model,
        processor,
        image,
        options.question,
        asked,
        true_box=options.box,
        name=public_name(options.model),
        rounds=options.rounds,
    )
    screen.print(table(explanation.only(shown)))
    with fonts.any_script() as lacking:
        if options.output is not None:
            (filmstrip if of_video else sheet).draw(explanation.only(shown), options.output)
            screen.print(f"Written to {options.output}")
        if options.gif is not None:
            filmstrip.animate(explanation.only(shown), options.gif)
            screen.print(f"Written to {options.gif}")
    if lacking:
        screen.print(
            f"No installed font has {' '.join(sorted(lacking))}: the image shows boxes instead. Install a font that "
            "does, such as Noto Sans CJK, or use --html."
        )
    if options.html is not None:
        page.write(explanation, options.html)
        screen.print(f"Written to {options.html}")


def _check(options: Namespace, of_video: bool) -> None:
    """Raise SettingError for an option that does not apply to an image, or to a video, and for an output file that
    cannot be written."""
    from tokenprune.errors import SettingError
    from tokenprune.evals.storage.files import check_file

    if of_video and options.box is not None:
        raise SettingError("--box is for images only: leave it out for a video")
    for option, path, ending in (("--output", options.output, ".png"), ("--gif", options.gif, ".gif")):
        if path is not None and path.suffix.lower() != ending:
            raise SettingError(f"{option} {path}: only {ending} files can be written. Write {path.with_suffix(ending)}")
    for option, path in (("--output", options.output), ("--gif", options.gif), ("--html", options.html)):
        if path is not None:
            check_file(path, option)
    if options.frames is not None and not of_video:
        raise SettingError(f"--frames is for videos, and {options.image} is an image: leave it out")
    if options.gif is not None and not of_video:
        raise SettingError(f"--gif is for videos, and {options.image} is an image: use --output for a PNG file")


def _read(options: Namespace, of_video: bool, screen: Any) -> Any:
    """Return the image, or the frames read from the video. Raises DataError if the file cannot be read, or if --box is
    not inside the image."""
    from rich.progress import track

    from tokenprune.evals.reading.allowed import allowing
    from tokenprune.evals.reading.coco import check_pixels
    from tokenprune.evals.reading.images import open_image
    from tokenprune.evals.reading.videos import read_clip

    with allowing(max_image_pixels=options.max_image_pixels):
        if of_video:
            n_frames = options.frames or FRAMES
            return read_clip(
                options.image,
                n_frames,
                track=lambda frames: track(frames, "frames", n_frames, console=screen, transient=True),
            )
        image = open_image(options.image)
        if options.box is not None:
            check_pixels(options.box, image.size, "--box")
        return image
