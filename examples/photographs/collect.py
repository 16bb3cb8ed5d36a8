"""Copy the photographs that scikit-learn and scikit-image ship into `pictures/`, beside `conversations.json`.

The packages are only looked into, never imported, so they can be installed without what they depend on:

    pip install --no-deps scikit-learn scikit-image
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
PLACES = {"sklearn": "datasets/images", "skimage": "data"}


def main() -> int:
    wanted = sorted({row["image"] for row in json.loads((HERE / "conversations.json").read_text("utf-8"))})
    folders = []
    for package, place in PLACES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            print(
                f"{package} is not installed: pip install --no-deps scikit-learn scikit-image",
                file=sys.stderr,
            )
            return 1
        folders.append(Path(spec.origin).parent / place)
    for name in wanted:
        target = HERE / name
        source = next((folder / target.name for folder in folders if (folder / target.name).is_file()), None)
        if source is None:
            print(f"none of {', '.join(map(str, folders))} holds {target.name}", file=sys.stderr)
            return 1
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    print(f"{len(wanted)} pictures in {HERE / 'pictures'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
