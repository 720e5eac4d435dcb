"""The verbs of ``lhama`` and their options; what each does is in the module it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lhama.daemon.cli import output, serviceverbs
from lhama.daemon.cli.client import Client
from lhama.daemon.config import Settings

app = typer.Typer(
    name="lhama",
    no_args_is_help=True,
    add_completion=False,
    # Both would import rich before the verb is known.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, such as smollm2:135m.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Speak HTTP without TLS to the registry.")
]
NoPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--no-plugins",
        metavar="NAME",
        help="Do not load this plugin; without =NAME: none but lhama's own. May be repeated.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting, as 'lhama config' names it. May be repeated.",
    ),
]


def _client() -> Client:
    settings = Settings.from_environment()
    for warning in settings.warnings:
        if warning.startswith("OLLAMA_HOST"):
            output.note(f"warning: {warning}")
    return Client(settings.url, settings.api_key)


def _version(wanted: bool) -> None:
    if wanted:
        from lhama.daemon.cli import about

        about.version(_client())
        raise typer.Exit


@app.callback()
def lhama(
    version: Annotated[
        bool,
        typer.Option("--version", "-v", callback=_version, is_eager=True, help="Show versions."),
    ] = False,
) -> None:
    """Run language models behind the Ollama API.

    OLLAMA_HOST says where the server is (default 127.0.0.1:11434); it may be a real Ollama.
    """


@app.command()
def serve(
    no_plugins: NoPlugins = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Use this backend only; default: the best for each model."
        ),
    ] = None,
    given: Set = None,
) -> None:
    """Start the daemon. Flags, OLLAMA_* and LHAMA_* variables and config.toml configure it."""
    from lhama.daemon import app as daemon

    daemon.run(_settings(no_plugins, backend, given))


app.command("start", hidden=True)(serve)


@app.command()
def config(given: Set = None) -> None:
    """Show every setting, its value, and where that is from."""
    from lhama.daemon.cli import about

    about.config(Settings.from_environment(None, given or ()))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look for what is missing on this machine, and say what mends it.

    Exit status 1 if models cannot run.
    """
    from lhama.daemon.cli import doctor as examination

    raise typer.Exit(examination.run(Settings.from_environment(), as_json=as_json))


@app.command()
def run(
    model: Model,
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="Ask this and leave.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show times and rates.")] = False,
    keepalive: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to stay loaded: 5m, 1h, -1.")
    ] = "",
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="Answer in json, or by a JSON Schema.")
    ] = "",
    think: Annotated[
        str, typer.Option(metavar="[LEVEL]", help="Thinking: true, false, low, medium, high, max.")
    ] = "",
    hidethinking: Annotated[bool, typer.Option("--hidethinking", help="Hide thoughts.")] = False,
    nowordwrap: Annotated[
        bool, typer.Option("--nowordwrap", help="Do not break lines between words.")
    ] = False,
    dimensions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of an embedding model's vector.")
    ] = None,
    truncate: Annotated[
        str, typer.Option(metavar="[BOOL]", help="Cut a text too long for an embedding model.")
    ] = "",
    insecure: Insecure = False,
) -> None:
    """Chat with a model, or ask it one thing.

    The question is the argument, what comes through a pipe, or both; pictures in it are named by
    their paths. A model that is not there is pulled first.
    """
    from lhama.daemon.cli import running

    options = running.RunOptions(
        keep_alive=keepalive,
        format=format,
        think=running.read_think(think),
        hide_thinking=hidethinking,
        word_wrap=not nowordwrap,
        dimensions=dimensions or 0,
        truncate=running.read_switch(truncate, "truncate"),
        verbose=verbose,
        history=not Settings.from_environment().no_history,
    )
    running.run(_client(), model, prompt or [], options, insecure=insecure)


@app.command(short_help="Watch the loaded models at work.")
def top(
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Between two looks.")
    ] = 1.0,
    times: Annotated[
        int, typer.Option(metavar="N", min=0, help="Leave after so many looks; 0: never.")
    ] = 0,
) -> None:
    """Watch the loaded models: batch size, tokens per second, how long the device waits."""
    from lhama.daemon.cli import top as module

    module.top(_client(), interval, times)


@app.command(short_help="Write a loaded model's last steps as a trace.")
def trace(
    model: Model,
    target: Annotated[Path, typer.Argument(metavar="OUT.json", help="Where the trace goes.")],
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, max=4096, help="How many of the last.")
    ] = 200,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the assembly line, too.")
    ] = None,
) -> None:
    """Write a loaded model's last steps, for Perfetto or chrome://tracing."""
    from lhama.daemon.cli import trace as module

    module.trace(_client(), model, steps, target, svg)


@app.command(short_help="Measure a model on this machine.")
def bench(
    model: Model,
    streams: Annotated[
        str, typer.Option(metavar="N,N,…", help="How many at once, one after the other.")
    ] = "1,8,32",
    tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Of each answer.")] = 128,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of four blocks: on, off, off, on.")
    ] = 2,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every block's figures.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw tokens per second as SVG.")
    ] = None,
) -> None:
    """Measure a model on this machine, with the pipeline on and off in turn."""
    from lhama.daemon.cli import bench as module

    counts = module.read_streams(streams)
    module.bench(
        _client(), model, counts, tokens=tokens, rounds=rounds, json_file=json, chart=chart
    )


@app.command()
def pull(model: Model, insecure: Insecure = False) -> None:
    """Fetch a model from its registry, or bring it up to date.

    MODEL may name a registry (host/namespace/model:tag) or a GGUF repository (hf.co/user/repo:Q4_K_M).
    """
    from lhama.daemon.cli import transferring

    transferring.pull(_client(), model, insecure=insecure)


@app.command()
def push(model: Model, insecure: Insecure = False) -> None:
    """Send a model to the registry in its name."""
    from lhama.daemon.cli import transferring

    transferring.push(_client(), model, insecure=insecure)


@app.command("list")
def list_(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Only names that begin so.")] = "",
) -> None:
    """List the models in the store."""
    from lhama.daemon.cli import models

    models.list_models(_client(), prefix)


app.command("ls", hidden=True)(list_)


@app.command()
def ps() -> None:
    """List the models that are loaded."""
    from lhama.daemon.cli import models

    models.running(_client())


@app.command()
def show(
    model: Model,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only the Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only these.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only the template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only the system text.")] = False,
    license: Annotated[bool, typer.Option("--license", help="Only the license.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All metadata and tensors too.")
    ] = False,
) -> None:
    """Show what a model is."""
    from lhama.daemon.cli import showing

    flags = {
        "license": license,
        "modelfile": modelfile,
        "parameters": parameters,
        "system": system,
        "template": template,
    }
    showing.show(_client(), model, [name for name, on in flags.items() if on], verbose)


@app.command()
def create(
    model: Model,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="The Modelfile; without one, ./Modelfile or this folder's files.",
        ),
    ] = None,
    quantize: Annotated[
        str,
        typer.Option(
            "--quantize", "-q", metavar="TYPE", help="Quantize to this type, such as Q4_K_M."
        ),
    ] = "",
    draft_quantize: Annotated[
        str,
        typer.Option(
            "--draft-quantize", metavar="TYPE", help="Quantize the DRAFT model to this type."
        ),
    ] = "",
) -> None:
    """Create a model from a Modelfile, or from a folder."""
    from lhama.daemon.cli import creating

    creating.create(_client(), model, file, quantize, draft_quantize)


@app.command("import")
def import_(
    model: Model,
    path: Annotated[Path, typer.Argument(metavar="GGUF", help="The weights.")],
) -> None:
    """Create a model from a GGUF file, without a Modelfile."""
    from lhama.daemon.cli import creating

    creating.import_gguf(_client(), model, path)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The model there is.")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="Its second name.")],
) -> None:
    """Copy a model."""
    from lhama.daemon.cli import models

    models.copy(_client(), source, destination)


@app.command()
def rm(names: Annotated[list[str], typer.Argument(metavar="MODEL", help="Their names.")]) -> None:
    """Remove models."""
    from lhama.daemon.cli import models

    models.remove(_client(), names)


@app.command()
def stop(model: Model) -> None:
    """Unload a model."""
    from lhama.daemon.cli import models

    models.stop(_client(), model)


@app.command()
def plugins(no_plugins: NoPlugins = None) -> None:
    """List installed plugins and their devices."""
    from lhama.daemon.cli import about

    about.plugins(_settings(no_plugins, None))


app.add_typer(serviceverbs.service, name="service")


def _settings(
    no_plugins: list[str] | None, backend: str | None, given: list[str] | None = None
) -> Settings:
    """The environment's settings, what the flags say on top."""
    blocked = Settings.from_environment(None, given or ()).blocked_plugins
    return Settings.from_environment(
        None, given or (), blocked_plugins=(*blocked, *(no_plugins or ())), backend=backend
    )
