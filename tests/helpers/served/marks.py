"""How tests write images and videos in prompts of tiny models."""

#: The side of a patch in pixels, in most models.
PATCH = 14
IMAGE = "<image>"
QWEN_IMAGE = "<|vision_start|> <|image_pad|> <|vision_end|>"
QWEN_VIDEO = QWEN_IMAGE.replace("image", "video")
#: A video in a prompt of Cosmos 3 Edge, which also replaces the marks around it.
COSMOS_VIDEO = QWEN_VIDEO.replace(" ", "")
#: A sound in a prompt of Qwen-Omni.
QWEN_SOUND = "<|audio_start|> <|audio_pad|> <|audio_end|>"
INTERN_IMAGE = "<IMG_CONTEXT>"
#: An image of an InternVL in its authors' format; vLLM writes INTERN_IMAGE for each of its visual tokens.
CHAT_IMAGE = "<image>"
GEMMA_IMAGE = "<start_of_image>"
GEMMA4_IMAGE = "<|image|>"
GLM_IMAGE = "<|begin_of_image|> <|image|> <|end_of_image|>"
KIMI_IMAGE = "<|media_begin|> <|media_pad|> <|media_end|>"
LFM3_VIDEO = "<|vision_start|> <|video|> <|vision_end|>"
LFM3_IMAGE = LFM3_VIDEO.replace("video", "image")
MINICPM_IMAGE = "<|image_pad|>"
MINICPM_VIDEO = "<|video_pad|>"
MINIMAX_IMAGE, MINIMAX_VIDEO = "]<]image[>[", "]<]video[>["
MISTRAL_IMAGE = "[IMG]"
PADDLE_IMAGE = "<|IMAGE_START|> <|IMAGE_PLACEHOLDER|> <|IMAGE_END|>"
STEP_IMAGE = "<im_patch>"
