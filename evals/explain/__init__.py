"""Which tokens every strategy keeps of one image or video, and what the model answers.

explain    asks the question
outcomes   what happened to every visual token, and what was answered
canvas     where the visual tokens lie on the image
table      the outcome in the terminal
sheet      ... as a figure
panels     the parts of that figure
page       ... as a page with a slider
filmstrip  ... of a video
zoom       the tiles that `tokenprune.Zoom` has examined
"""
