"""Visual instruction data: what a teacher is told of a picture, what it writes, and how that becomes conversations."""
