"""Readers of published file formats. Errors name the file, and the line or record in it.

records  a file as records
hub      sets from the Hugging Face Hub
coco     COCO's boxes
fields   fields of a record
images   images as a model should see them
videos   frames of a video
allowed  which files may be read, and how large an image may be
"""
