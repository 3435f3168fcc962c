"""Defaults that commands and functions share. Imports nothing, so that a command's help can show them at once."""

#: For commands that use one. Runs in vLLM without calibration; beats FoPru's defaults on the bundled model.
DEFAULT_STRATEGY = "mosaic"
#: `serve` takes the first of these that the model can run in vLLM. In which_strategy.md, FoPru has the best mean of
#: those that vLLM runs without rows and columns, except for Random, which has less VQA; Grid is the best of those that
#: read no attention, in every column.
SERVED_STRATEGIES = (DEFAULT_STRATEGY, "fopru:layer=-2", "grid")
# Layer -2: the bundled tower's last layer was trained to name objects and guides FoPru worse.
DEFAULT_STRATEGIES = ("grid", "fopru:layer=-2", "mosaic")
#: What is compared on a single image: the baseline, a ranking, and the default, which covers the image.
EXPLAINED_STRATEGIES = ("random", "fopru:mode=rank,layer=-2", DEFAULT_STRATEGY)
#: The same on a video: the baseline, what changes, and what stands out.
EXPLAINED_OF_VIDEOS = ("random", "evs", "vidcom2")
DEFAULT_KEEP_RATIOS = (0.5, 0.25, 0.1)
POSITION_IDS = ("original", "compact")
#: The most tokens in a batch of questions, before pruning and with padding.
BATCH_TOKENS = 4096
#: The keep ratios between which `tune` searches.
SEARCHED_KEEP_RATIOS = (0.05, 0.9)
#: The name that options give to all splits of a data set but train.
ALL_SPLITS = "all"
#: The split that calibration questions are drawn from, if the data set has splits.
CALIBRATION_SPLIT = "val"
#: How many frames of a video are read.
FRAMES = 8
#: Pixels of the largest image that is decoded: Pillow's own limit, 0.5 GB in RGB.
MAX_IMAGE_PIXELS = 178_956_970
