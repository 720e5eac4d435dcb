"""The slash commands of a conversation: ``/set``, ``/show``, ``/load``, ``/save`` and the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lhama.daemon.cli import createbody, models, output, showing
from lhama.daemon.cli.client import Json
from lhama.daemon.cli.running import read_think
from lhama.daemon.errors import BadRequest

if TYPE_CHECKING:
    from lhama.daemon.cli.chat import Chat

HELP = '''\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load MODEL     Go on with another model
  /save MODEL     Save this session as a model
  /clear          Forget the conversation
  /list           List models
  /bye            Exit
  /?, /help       Help for a command, e.g. /? set
  /? shortcuts    Help for keyboard shortcuts

Use """ to begin a multi-line message.
'''
HELP_SET = """\
Available Commands:
  /set parameter NAME VALUE...   Set a parameter
  /set system TEXT               Set the system message
  /set history | nohistory       Keep what is typed for the next time, or not
  /set format json | noformat    Answer in JSON, or freely
  /set wordwrap | nowordwrap     Break lines between words, or anywhere
  /set verbose | quiet           Show times and rates, or not
  /set think [LEVEL] | nothink   Let the model think, or not
"""
HELP_SHOW = """\
Available Commands:
  /show info         Everything below in short
  /show license      The model's license
  /show modelfile    Its Modelfile
  /show parameters   Its parameters and yours
  /show system       Its system message, or yours
  /show template     Its prompt template
"""
SHORTCUTS = """\
Available keyboard shortcuts:
  Ctrl + c    Stop the answer
  Ctrl + d    Exit
  Ctrl + a/e  To the line's begin or end
  Ctrl + u/k  Delete to the line's begin or end
  Ctrl + r    Search what was typed before
"""
_HELP = {"set": HELP_SET, "show": HELP_SHOW, "shortcuts": SHORTCUTS}


def is_command(line: str) -> bool:
    """Whether a line is a command, and not a message that begins with a file's path."""
    return line.startswith("/") and "/" not in line.split()[0][1:]


def execute(chat: Chat, line: str) -> bool:
    """Carry out one command; False ends the conversation. Raises ``LhamaError``."""
    verb, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    match verb:
        case "/bye" | "/exit":
            return False
        case "/?" | "/help":
            output.say(_HELP.get(rest.lstrip("/"), HELP))
        case "/clear":
            chat.messages.clear()
            output.say("Cleared session context")
        case "/list":
            models.list_models(chat.client)
        case "/load":
            chat.load(_required(rest, "/load MODEL"))
        case "/save":
            _save(chat, _required(rest, "/save MODEL"))
        case "/set":
            _set(chat, rest)
        case "/show":
            _show(chat, rest)
        case _:
            output.say(f"Unknown command '{verb}'. Type /? for help")
    return True


def _set(chat: Chat, rest: str) -> None:
    name, _, value = rest.partition(" ")
    value = value.strip().removeprefix('"""').removesuffix('"""')
    options = chat.options
    match name:
        case "parameter":
            _set_parameter(chat, value)
        case "system":
            chat.system = _required(value, "/set system TEXT")
            output.say("Set system message.")
        case "history" | "nohistory":
            options.history = name == "history"
        case "format":
            if value != "json":
                raise BadRequest("the only format to set is json: /set format json")
            options.format = "json"
            output.say("Set format to 'json' mode.")
        case "noformat":
            options.format = ""
            output.say("Disabled format.")
        case "verbose" | "quiet":
            options.verbose = name == "verbose"
            output.say(f"Set '{name}' mode.")
        case "think":
            options.think = read_think(value or "true")
            output.say("Set 'think' mode.")
        case "nothink":
            options.think = False
            output.say("Set 'nothink' mode.")
        case "wordwrap" | "nowordwrap":
            options.word_wrap = name == "wordwrap"
            output.say(f"Set '{name}' mode.")
        case _:
            output.say(HELP_SET)


def _set_parameter(chat: Chat, rest: str) -> None:
    name, *values = rest.split()
    if not values:
        raise BadRequest("usage: /set parameter NAME VALUE...")
    if createbody.PARAMETERS.get(name) == "list":
        chat.parameters[name] = values
    else:
        chat.parameters[name] = createbody.read_parameter(name, values[0])
    output.say(f"Set parameter '{name}' to '{', '.join(values)}'")


def _show(chat: Chat, what: str) -> None:
    printers: dict[str, Callable[[], str]] = {
        "info": lambda: showing.render(chat.details),
        "license": lambda: chat.details.get("license") or "No license was specified.",
        "modelfile": lambda: chat.details.get("modelfile", ""),
        "parameters": lambda: _parameters(chat),
        "system": lambda: (
            chat.system or chat.details.get("system") or "No system message was specified."
        ),
        "template": lambda: chat.details.get("template") or "No template was specified.",
    }
    output.say(printers.get(what, lambda: HELP_SHOW)())


def _parameters(chat: Chat) -> str:
    own = [f"  {name:<30} {value}" for name, value in chat.parameters.items()]
    model = ["  " + line for line in chat.details.get("parameters", "").splitlines()]
    return "\n".join(
        ["Model defined parameters:", *(model or ["  none"])]
        + (["", "User defined parameters:", *own] if own else [])
    )


def _save(chat: Chat, name: str) -> None:
    body: Json = {"model": name, "from": chat.model, "stream": True}
    if chat.parameters:
        body["parameters"] = chat.parameters
    if chat.system:
        body["system"] = chat.system
    if chat.messages:
        body["messages"] = chat.messages
    with output.Waiting(f"saving {name}"):
        for _ in chat.client.stream("/api/create", body):
            pass
    output.say(f"Created new model '{name}'")


def _required(value: str, usage: str) -> str:
    if not value:
        raise BadRequest(f"usage: {usage}")
    return value
