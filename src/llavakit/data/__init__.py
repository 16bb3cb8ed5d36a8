"""From files of conversations to packs: readers, the index, the plan, the loader, and the doctor of data sets."""
