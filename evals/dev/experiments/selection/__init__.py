"""Time of selection alone, without a model around it: the strategies' own work.

images  of one image, by every strategy that prunes after the tower
videos  of growing numbers of frames, by strategies that compare them
"""
