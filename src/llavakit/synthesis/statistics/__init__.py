"""What a data set of instructions is made of, as numbers and as a page.

`rows` reads a data set in any of its forms, `language` finds what a question asks for, `counting` adds everything up,
`sunburst` and `charts` draw, `viewing` prepares samples to be leafed through, `page` puts the page together.
"""
