"""The time of selection alone, without a model: the strategies' own work.

images  one image, for every strategy that prunes after the tower
videos  growing numbers of frames, for strategies that compare frames
"""
