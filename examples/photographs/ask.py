"""Asks a trained model every question of conversations.json and says how many answers are exactly those it was taught.

python examples/photographs/ask.py runs/photographs/checkpoints/2-tune
"""

from __future__ import annotations

import sys
from pathlib import Path

from llavakit.data.readers.llava import read_llava
from llavakit.model.llava import Llava

HERE = Path(__file__).parent

if __name__ == "__main__":
    model = Llava.from_pretrained(sys.argv[1])
    exact = asked = 0
    for row in read_llava(HERE / "conversations.json"):
        assert row.conversation is not None, row.problem
        question, answer = row.conversation.turns
        said = model.chat(question.text.strip(), images=row.conversation.images, max_new_tokens=48)
        exact, asked = exact + (said == answer.text), asked + 1
        print(f"{row.conversation.id}: {said}", flush=True)
    print(f"{exact} of {asked} answers are word for word as taught")
