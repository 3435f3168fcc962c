"""Turns the results of runs into tables, plots and a page.

report          the whole report
tables          accuracy, splits and differences
table           what every table is: text in headings and lines, written as Markdown
terminal        the table that `tokenprune eval` prints
pareto          accuracy against visual tokens and against time
page            the HTML page
regressions     questions that pruning loses
same_questions  whether runs that are reported together asked the same
rendering       HTML from templates
palette         colours, marks and dashes
markers         generated tables in Markdown documents
"""
