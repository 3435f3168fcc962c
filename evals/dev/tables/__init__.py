"""The generated tables of the documentation, each made from stored results.

accuracy            what pruning loses
speed               time and memory
accuracy_and_speed  pages that report both
"""
