"""Logging: one line an event on stderr, for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from lhama.daemon.config import Settings


def configure(settings: Settings) -> None:
    """Set up structlog and the standard library's logging, which aiohttp uses: one form for both."""
    level = logging.DEBUG if settings.debug or settings.log_requests else logging.INFO
    as_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The pretty one shows local variables: prompts, keys, whole requests.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([structlog.processors.format_exc_info] if as_json else []),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_strangers_mistake)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _strangers_mistake(record: logging.LogRecord) -> bool:
    """A request that is no HTTP is one line, whoever sends it and however often, and no trace."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__module__.startswith("aiohttp.http"):
        record.msg, record.args = f"{record.getMessage()}: {str(error).split(chr(10))[0]}", ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
