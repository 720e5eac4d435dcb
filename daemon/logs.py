"""Logging: one line an event on stderr, for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from lhama.daemon.config import Settings


def configure(settings: Settings) -> None:
    """Set up structlog and the standard library's logging, which aiohttp uses."""
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
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
