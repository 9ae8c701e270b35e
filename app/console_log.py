"""Log lines as people read them. An exception is drawn without its local variables: they hold passwords and write keys."""

import structlog


def console_renderer(*, colors: bool = True) -> structlog.dev.ConsoleRenderer:
    """Draws log lines; structlog's default would draw local variables too."""
    tracebacks = structlog.dev.RichTracebackFormatter(show_locals=False, color_system="truecolor" if colors else None)
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=tracebacks)


def draw_without_locals(*, colors: bool) -> None:
    """Give structlog's default configuration that renderer: for a process that does not call `configure_logging`."""
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], console_renderer(colors=colors)])
