"""Annotations of pictures, read from the files in which data sets publish them.

    files.py           a file's content, and which data set's form it has
    coco.py            COCO: captions and instances, of 2014, of 2017 or of one's own
    visual_genome.py   Visual Genome: regions, objects, relationships, and the pictures' sizes
    rows.py            one picture a line, as JSONL
    draft.py           a picture while its annotations come together

Which file is what is seen by its content, never by its name. Nothing that is left out goes unsaid: every caption, box
or picture that could not be used is counted by its reason.
"""

from llavakit.synthesis.annotations.read import Annotations, read_annotations

__all__ = ["Annotations", "read_annotations"]
