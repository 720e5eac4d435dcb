"""Settings: read once from flags, environment and file, then passed down. Nothing else reads them."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lhama.daemon import durations
from lhama.daemon.apikeys import NO_KEYS, ApiKeys
from lhama.daemon.durations import FOREVER, MINUTE, SECOND, Duration
from lhama.daemon.errors import LhamaError
from lhama.daemon.sources import BadSource, Sources

_T = TypeVar("_T")

COMPATIBLE_VERSION = "0.33.0"
"""The Ollama release whose API is spoken: clients compare ``/api/version`` with it."""

DEFAULT_PORT = 11434

_LOCAL_ORIGINS = tuple(
    f"{scheme}://{host}{port}"
    for host in ("localhost", "127.0.0.1", "0.0.0.0")
    for port in ("", ":*")
    for scheme in ("http", "https")
)
_APP_ORIGINS = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
_ORIGIN_SCHEMES = (
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)


class BadSetting(LhamaError):
    """A setting the daemon cannot start with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the daemon; the defaults are what an empty environment gives."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str = ""
    """Path of ``OLLAMA_HOST``: where a client finds the API behind a proxy."""
    models: Path = Path()
    origins: tuple[str, ...] = (*_LOCAL_ORIGINS, *_APP_ORIGINS)
    hosts: tuple[str, ...] = ()
    """Names with a dot that a daemon without keys answers to when it is bound to more than
    loopback; ``*`` in one stands for any text."""
    keep_alive: Duration = 5 * MINUTE
    load_timeout: Duration = 5 * MINUTE
    """Longest stall of a load without progress."""
    step_timeout: Duration = 5 * MINUTE
    """Longest time a runner may take for one step, and five times what it may be silent; then it is
    given up and replaced. A step is at most a batch of prompt tokens."""
    num_parallel: int = 0
    """Slots of a runner; 0: the scheduler chooses by memory. Ollama's default of 1 would serve
    clients in turn, where one batch can serve them together."""
    max_loaded_models: int = 0
    max_queue: int = 512
    context_length: int = 0
    """0: chosen by memory."""
    gpu_overhead: int = 0
    """Bytes of each accelerator left free."""
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    go_template: bool | None = None
    """``None`` leaves the choice between Go template and Jinja to what each can do."""
    no_prune: bool = False
    no_history: bool = False
    debug: int = 0
    """0 INFO, 1 DEBUG, 2 TRACE."""
    log_requests: bool = False
    identity: Path = Path()
    """The key this machine signs in to registries with, Ollama's: ``~/.ollama/id_ed25519``."""
    hf_token: str = dataclasses.field(default="", repr=False)
    """Sent to Hugging Face and nobody else."""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    """Hosts that are reached without a proxy, separated by commas."""
    pipeline: str = "auto"
    """``on``: the halves of a step overlap. ``off``: the sequential twin. ``auto``: they overlap
    unless the model computes on the processor and its first steps are faster without."""
    backend: str = ""
    """Force this backend; empty: the best one that supports the model."""
    blocked_plugins: tuple[str, ...] = ()
    """Plugins that are not loaded; ``*``: all that do not come with lhama."""
    ui: bool = True
    """Whether ``/ui`` is there."""
    log_format: str = "console"
    """``console`` or ``json``."""
    report_version: str = COMPATIBLE_VERSION
    """What ``/api/version`` says."""
    shutdown_grace: Duration = 30 * SECOND
    """How long running requests may go on after SIGTERM."""
    api_keys: ApiKeys = NO_KEYS
    """Who may call; empty: everybody."""
    api_key: str = dataclasses.field(default="", repr=False)
    """The key that the command line sends."""
    tls_cert: Path | None = None
    """Certificate chain in PEM; with one, the daemon speaks HTTPS only."""
    tls_key: Path | None = None
    """Its key, if that is not in the same file."""
    warnings: tuple[str, ...] = ()
    """Values that could not be read and were replaced by their defaults."""

    origin_of: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Where each variable's value is from, in words: ``environment OLLAMA_HOST``, ``default`` …"""

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, given: Iterable[str] = (), **flags: Any
    ) -> Settings:
        """Read ``given`` (``name=value``), the environment and the file, the first that has it.

        ``flags`` (fields of this class) win over all where they are not ``None``. A file is looked
        for only beside the process's own environment, or where it is named.

        A value that cannot be read becomes its default and a warning, as Ollama does. Raises
        ``BadSetting`` for an origin that could never match, and for keys that cannot be read:
        their default would let everybody in.
        """
        real = os.environ if environ is None else environ
        try:
            sources = Sources(real, given, search=environ is None)
        except BadSource as error:
            raise BadSetting(str(error)) from None
        read = _Reader(sources)
        scheme, host, port, path = _address(read)
        blocked = tuple(n for n in _commas(read.text("LHAMA_NO_PLUGINS")) if n)
        values: dict[str, Any] = {
            "scheme": scheme,
            "host": host,
            "port": port,
            "path": path,
            "models": _models(read),
            "origins": _origins(read),
            "hosts": tuple(h.lower() for h in _commas(read.text("LHAMA_HOSTS")) if h),
            "keep_alive": _forever_if(read.duration("OLLAMA_KEEP_ALIVE", 5 * MINUTE), below=0),
            "load_timeout": _forever_if(read.duration("OLLAMA_LOAD_TIMEOUT", 5 * MINUTE), below=1),
            "num_parallel": read.unsigned("OLLAMA_NUM_PARALLEL", 0),
            "max_loaded_models": read.unsigned("OLLAMA_MAX_LOADED_MODELS", 0),
            "max_queue": read.unsigned("OLLAMA_MAX_QUEUE", 512),
            "context_length": read.unsigned("OLLAMA_CONTEXT_LENGTH", 0),
            "gpu_overhead": read.unsigned("OLLAMA_GPU_OVERHEAD", 0),
            "kv_cache_type": read.text("OLLAMA_KV_CACHE_TYPE") or "f16",
            "flash_attention": read.maybe("OLLAMA_FLASH_ATTENTION"),
            "go_template": read.maybe("OLLAMA_GO_TEMPLATE"),
            "no_prune": bool(read.maybe("OLLAMA_NOPRUNE")),
            "no_history": bool(read.maybe("OLLAMA_NOHISTORY")),
            "debug": read.level("OLLAMA_DEBUG"),
            "log_requests": bool(read.maybe("OLLAMA_DEBUG_LOG_REQUESTS")),
            "identity": _home(read) / ".ollama" / "id_ed25519",
            "hf_token": read.text("HF_TOKEN"),
            "http_proxy": read.either("HTTP_PROXY", "http_proxy"),
            "https_proxy": read.either("HTTPS_PROXY", "https_proxy"),
            "no_proxy": read.either("NO_PROXY", "no_proxy"),
            "pipeline": read.choice("LHAMA_PIPELINE", ("auto", "on", "off")),
            "backend": read.text("LHAMA_BACKEND"),
            "blocked_plugins": tuple("*" if n in ("all", "1") else n for n in blocked),
            "ui": read.maybe("LHAMA_UI") is not False,
            "log_format": read.choice("LHAMA_LOG_FORMAT", ("console", "json")),
            "report_version": read.text("LHAMA_REPORT_VERSION") or COMPATIBLE_VERSION,
            "step_timeout": _forever_if(read.duration("LHAMA_STEP_TIMEOUT", 5 * MINUTE), below=1),
            "shutdown_grace": read.duration("LHAMA_SHUTDOWN_GRACE", 30 * SECOND),
            "api_keys": _api_keys(read),
            "api_key": read.text("OLLAMA_API_KEY"),
            "tls_cert": read.path("LHAMA_TLS_CERT"),
            "tls_key": read.path("LHAMA_TLS_KEY"),
        }
        if values["tls_cert"]:
            values["scheme"] = "https"
        elif values["tls_key"]:
            raise BadSetting("LHAMA_TLS_KEY is set and LHAMA_TLS_CERT is not: both, or neither")
        _refuse_unknown(sources)
        origins = {variable: sources.origin(variable) for variable in sources.asked}
        values |= {name: value for name, value in flags.items() if value is not None}
        return cls(**values, warnings=tuple(read.warnings), origin_of=origins)

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the daemon."""
        connectable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
        host = connectable.get(self.host, self.host)
        authority = dataclasses.replace(self, host=host).address
        return f"{self.scheme}://{authority}" + (f"/{self.path}" if self.path else "")


def _refuse_unknown(sources: Sources) -> None:
    """Raise ``BadSetting`` for a name that is none: a slip would be a setting that does nothing."""
    unknown, known = sources.unknown()
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]}?" if close else "'lhama config' lists all"
        raise BadSetting(f"there is no setting {unknown[0]!r}: {hint}")


class _Reader:
    """Typed reads of an environment, each with a default for what cannot be read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.warnings: list[str] = []

    def text(self, name: str) -> str:
        """The value without surrounding space and quotes."""
        return self.environ.get(name, "").strip().strip("\"'")

    def either(self, *names: str) -> str:
        """The first of some variables that is set."""
        return next((text for name in names if (text := self.text(name))), "")

    def unsigned(self, name: str, default: int) -> int:
        text = self.text(name)
        if not text:
            return default
        if text.isascii() and text.isdigit() and int(text) < 2**64:
            return int(text)
        return self._default(name, text, default)

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        return Path(text).expanduser() if text else None

    def duration(self, name: str, default: Duration) -> Duration:
        """A Go duration, or a whole number of seconds."""
        text = self.text(name)
        if not text:
            return default
        try:
            return durations.parse(text)
        except ValueError:
            pass
        try:
            return int(text) * SECOND
        except ValueError:
            return self._default(name, text, default)

    def maybe(self, name: str) -> bool | None:
        """A boolean, ``None`` where unset. Anything that is not a clear no is a yes."""
        text = self.text(name)
        if not text:
            return None
        return text not in ("0", "f", "F", "false", "FALSE", "False")

    def level(self, name: str) -> int:
        """``OLLAMA_DEBUG``: a boolean or a number."""
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() else int(bool(self.maybe(name)))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        text = self.text(name).lower()
        if not text or text in choices:
            return text or choices[0]
        return self._default(name, text, choices[0])

    def _default(self, name: str, text: str, default: _T) -> _T:
        self.warnings.append(f"{name}={text!r} cannot be read, using {default!r}")
        return default


def _address(read: _Reader) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of ``OLLAMA_HOST``; a bad port becomes the default.

    Raises ``BadSetting`` for what no host can be called.
    """
    text = read.text("OLLAMA_HOST").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    authority, _, path = rest.partition("/")
    host, port_text = _split_port(authority)
    if not _is_host(host):
        raise BadSetting(f"OLLAMA_HOST: {host!r} is no host's name or address")
    if port_text is None:
        port = default
    elif port_text.isascii() and port_text.isdigit() and int(port_text) <= 65535:
        port = int(port_text)
    else:
        read.warnings.append(f"OLLAMA_HOST: invalid port {port_text!r}, using {default}")
        port = default
    return scheme, host, port, path


def _split_port(authority: str) -> tuple[str, str | None]:
    """Host and port text; the port is ``None`` where there is none."""
    bare = authority.strip("[]")
    if "]" not in bare:  # a zone may hold anything: [fe80::1%eth0]:80 would be an address, too
        try:
            return str(ipaddress.ip_address(bare)), None
        except ValueError:
            pass
    host, separator, port = authority.rpartition(":")
    if not separator:
        return authority or "127.0.0.1", None
    return host.strip("[]"), port


def _is_host(text: str) -> bool:
    """Whether a URL can name a host so; empty: all of this machine's addresses."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return re.fullmatch(r"[^\s:/?#@\[\]]*", text) is not None


def _models(read: _Reader) -> Path:
    """``OLLAMA_MODELS``, else an Ollama store that is already there, else this user's own."""
    if given := read.text("OLLAMA_MODELS"):
        return Path(given).expanduser()
    existing = _home(read) / ".ollama" / "models"
    if existing.is_dir():
        return existing
    from platformdirs import user_data_dir

    return Path(user_data_dir("lhama", appauthor=False)) / "models"


def _home(read: _Reader) -> Path:
    home = read.environ.get("HOME") or read.environ.get("USERPROFILE")
    return Path(home or os.path.expanduser("~"))


def _origins(read: _Reader) -> tuple[str, ...]:
    given = tuple(o if "*" in o else o.lower() for o in _commas(read.text("OLLAMA_ORIGINS")) if o)
    for origin in given:
        if origin.count("*") > 1:
            raise BadSetting(f"OLLAMA_ORIGINS: {origin!r}: only one * is allowed")
        if "*" not in origin and not origin.startswith(_ORIGIN_SCHEMES):
            raise BadSetting(
                f"OLLAMA_ORIGINS: {origin!r} can never match: an origin contains '*' or begins "
                "with http://, https:// or a browser extension's scheme"
            )
        if "*" not in origin and urlsplit(origin).hostname is None:
            raise BadSetting(f"OLLAMA_ORIGINS: {origin!r} names no host")
    return (*given, *_LOCAL_ORIGINS, *_APP_ORIGINS)


def _api_keys(read: _Reader) -> ApiKeys:
    try:
        return ApiKeys.parse(read.text("LHAMA_API_KEYS"))
    except ValueError as error:
        raise BadSetting(f"LHAMA_API_KEYS: {error}") from None


def _commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _forever_if(duration: Duration, *, below: int) -> Duration:
    return FOREVER if duration < below else duration
