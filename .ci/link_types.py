# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Makes `.typing/fusionzoo`, a tree of links that shows type checkers the package as it is installed."""

import shutil
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
PARTS = ("configuration", "modeling", "processing", "training", "hub_cards")


def main() -> None:
    tree = ROOT / ".typing" / "fusionzoo"
    shutil.rmtree(tree.parent, ignore_errors=True)
    tree.mkdir(parents=True)
    for part in PARTS:
        (tree / part).symlink_to(Path("..", "..", part), target_is_directory=True)
    for file in (ROOT / "fusionzoo").iterdir():
        if file.is_file():
            (tree / file.name).symlink_to(Path("..", "..", "fusionzoo", file.name))


if __name__ == "__main__":
    main()
