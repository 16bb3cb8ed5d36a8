"""Pictures: what a picture becomes in integers (`geometry`) and in numbers for a vision tower (`pixels`)."""
