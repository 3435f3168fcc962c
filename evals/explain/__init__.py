"""What each strategy keeps of one image or video, and what the model then answers.

explain    asks the question
outcomes   the fate of every visual token, and the answer
canvas     where the visual tokens lie on the image
table      the outcome in the terminal
sheet      ... as a figure
panels     the parts of that figure
page       ... as a page with a slider
filmstrip  ... of a video
fonts      the fonts of these figures
zoom       the tiles that `tokenprune.Zoom` examined
"""
