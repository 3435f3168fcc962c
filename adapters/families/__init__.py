"""Model families: one file each, which registers its adapters when it is imported, which happens when one of them is
looked up in `ADAPTERS`.

`llava_frames` registers none: it is passed to `patch`, for video frames that LLaVA gets as the images of a prompt.
"""
