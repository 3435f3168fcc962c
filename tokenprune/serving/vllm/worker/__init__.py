"""What the model classes share in vLLM's worker process, where images are encoded and tokens decoded.

model         mixed in before vLLM's class: encode, select, and give kept tokens their original position IDs
family        ... what each family answers
batches       how many images the vision tower gets at once
before_tower  which patches it encodes
capture       queries and keys of one of its layers
ranks         ... of images divided among tensor parallel ranks
tiles         the encoded images of a call, with what the strategy reads
selector      which visual tokens of an image are kept
positions     original position IDs, by offsets that travel in the embeddings
rope          ... beyond the length of vLLM's tables
"""
