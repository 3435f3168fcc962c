"""A tiny robot policy in a folder, and recorded observations for it."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

from helpers.families.base import IMAGE, PAD, VOCAB
from helpers.files.evals import sample_image, word_tokenizer
from helpers.files.videos import grey, write_video

WIDTH = 7  # of states and actions, which are padded to 8
CAMERAS = ["observation.images.front", "observation.images.wrist"]
#: Statistics by the kind of policy, which leave states and actions as they are.
STATISTICS = {"PI0": {"mean": 0.0, "std": 1.0}, "PI05": {"q01": -1.0, "q99": 1.0}}
#: The path of a video in version 3, and in earlier versions.
NEW_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
OLD_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
FPS = 10
GREYS = {CAMERAS[0]: (20, 60, 100, 140), CAMERAS[1]: (240, 200, 160, 120)}


def saved_policy(folder: Path, kind: str = "PI0", **statistics: Any) -> str:
    """Save a PI0 or PI05 with two layers and random weights, for 224 x 224 pixels as from its processor, and return
    the folder. `statistics` replace its processor's."""
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**tower, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCAB, "model_type": "gemma"}
    vision = {
        **tower,
        "model_type": "siglip_vision_model",
        "image_size": 224,
        "patch_size": 14,
        "vision_use_head": False,
    }
    vlm = {"model_type": "paligemma", "text_config": text, "vision_config": vision, "projection_dim": 32}
    config = getattr(transformers, f"{kind}Config")(
        vlm_config={**vlm, "image_token_id": IMAGE},
        dit_config={**text, "hidden_size": 16},
        chunk_size=3,
        max_action_dim=8,
        num_inference_steps=4,
        **({"max_state_dim": 8} if kind == "PI0" else {}),
    )
    transformers.set_seed(0)
    policy = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    for name, parameter in policy.named_parameters():
        if name.endswith("norm.dense.weight"):  # at 0, as initialised, PI05's expert would not read the prompt
            torch.nn.init.normal_(parameter)
    policy.save_pretrained(folder)
    words = {f"w{number}": number for number in range(VOCAB)}  # a vocabulary without gaps
    named = {"<pad>": PAD, "<unk>": 1, "<bos>": 2, "<eos>": 3, "<image>": IMAGE, "push": 5, "the": 6, "cup": 7}
    words = {word: number for word, number in words.items() if number not in named.values()} | named
    known = {
        f"{feature}_{name}": [value] * WIDTH
        for feature in ("state", "actions")
        for name, value in STATISTICS[kind].items()
    }
    getattr(transformers, f"{kind}Processor")(
        image_processor=transformers.PI0ImageProcessor(),
        tokenizer=word_tokenizer(words, bos_token="<bos>", eos_token="<eos>"),
        max_state_dim=8,
        chunk_size=3,
        **{**known, **statistics},
    ).save_pretrained(folder)
    return str(folder)


def write_observations(folder: Path, n: int = 3, **changes: Any) -> Path:
    """Write observations.jsonl with two cameras and one episode per observation, and return the folder. `changes` apply
    to the last line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for number in range(n):
        for camera in range(2):
            box = (5 + 3 * number, 5 + camera, 30, 25)
            sample_image(box=box).save(folder / f"{number}_{camera}.png")
        images = [f"{number}_0.png", f"{number}_1.png"]
        lines.append({"images": images, "state": [0.1 * number] * WIDTH, "task": "push the cup"})
    lines[-1] |= changes
    (folder / "observations.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def write_lerobot(folder: Path, version: str = "v2.1", camera: str = "image") -> Path:
    """Write a LeRobot data set of two episodes with two frames each. Cameras are images, or videos of grey frames:
    GREYS by camera and frame of the data set."""
    (folder / "meta").mkdir(parents=True)
    new = version == "v3.0"
    features: dict[str, Any] = {name: {"dtype": camera, "shape": [40, 60, 3]} for name in CAMERAS}
    features |= {"observation.state": {"dtype": "float32", "shape": [WIDTH]}, "action": {"dtype": "float32"}}
    depth = {"dtype": "video", "info": {"video.is_depth_map": True}}
    info: dict[str, Any] = {"codebase_version": version, "fps": FPS, "chunks_size": 1000}
    info["features"] = {**features, "depth": depth}
    info["video_path"] = NEW_VIDEO if new else OLD_VIDEO
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    _write_tasks(folder / "meta", new)
    content = io.BytesIO()
    sample_image().save(content, "PNG")
    image = {"bytes": content.getvalue(), "path": "frame.png"}
    images = dict.fromkeys(CAMERAS, image) if camera == "image" else {}
    rows = [
        {**images, "observation.state": [0.5] * WIDTH, "action": [0.0] * WIDTH, "timestamp": frame / FPS}
        | {"frame_index": frame, "episode_index": episode, "task_index": 0}
        for episode in range(2)
        for frame in range(2)
    ]
    (folder / "data" / "chunk-000").mkdir(parents=True)
    for number, part in enumerate([rows] if new else [rows[:2], rows[2:]]):
        name = f"file-{number:03d}" if new else f"episode_{number:06d}"
        pq.write_table(pa.Table.from_pylist(part), folder / "data" / "chunk-000" / f"{name}.parquet")
        places = {"chunk_index": 0, "episode_chunk": 0, "file_index": number, "episode_index": number}
        for key in CAMERAS if camera == "video" else ():
            levels = GREYS[key][2 * number : 2 * number + len(part)]
            path = folder / info["video_path"].format(video_key=key, **places)
            write_video(path, [*map(grey, levels)], fps=FPS)
    return folder


def _write_tasks(meta: Path, new: bool) -> None:
    """Write the tasks and, in version 3, the episodes, which follow one another in one file per camera."""
    if not new:
        (meta / "tasks.jsonl").write_text('{"task_index": 0, "task": "push the cup"}\n')
        return
    pq.write_table(pa.table({"task_index": [0], "task": ["push the cup"]}), meta / "tasks.parquet")
    begins = {f"videos/{key}/from_timestamp": [0.0, 2 / FPS] for key in CAMERAS}
    places = {f"videos/{key}/{part}_index": [0, 0] for key in CAMERAS for part in ("chunk", "file")}
    path = meta / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"episode_index": [0, 1], **begins, **places}), path)
