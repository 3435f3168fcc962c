"""Turn the results of runs into tables, a plot and a page.

report          the whole report
tables          accuracy of setups and splits
differences     paired comparisons
estimate        a number with its interval, beside a published one
table           a table: headings and rows of text, written as Markdown, LaTeX or CSV
terminal        the table that `tokenprune eval` prints
verdict         the result in one sentence
plot            accuracy against visual tokens
page            the HTML page
regressions     questions that the unpruned model answers better
same_questions  checks that runs reported together asked the same questions
rendering       HTML from templates
palette         colours, marks and dashes
markers         generated tables in Markdown documents
"""
