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
"""Runs transformers' model-file linter without the rules that we do not adopt.

TRF014 forbids `trust_remote_code`, which concerns code inside transformers; TRF036 forbids `nn.Sequential`; TRF041
wants every branch on a configuration field to name Hub checkpoints.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mlinter


NOT_ADOPTED = ("TRF014", "TRF036", "TRF041")
FOLDERS = ("configuration", "modeling", "processing")


def main() -> int:
    rules = (Path(mlinter.__file__).parent / "rules.toml").read_text(encoding="utf-8")
    for rule in NOT_ADOPTED:
        switch = re.compile(rf"(\[rules\.{rule}\]\n(?:(?!\[).*\n)*?default_enabled = )true")
        rules, changed = switch.subn(r"\1false", rules)
        if changed != 1:
            raise SystemExit(f"mlinter's rules have no {rule} to switch off; update NOT_ADOPTED in {__file__}.")
    with tempfile.TemporaryDirectory() as folder:
        own_rules = Path(folder) / "rules.toml"
        own_rules.write_text(rules, encoding="utf-8")
        command = [sys.executable, "-m", "mlinter", "--rules-toml", str(own_rules), "--no-progress", "--no-cache"]
        return subprocess.run([*command, *FOLDERS], cwd=Path(__file__).resolve().parent.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
