"""The frame of a role's page: its processes, and what every consumer of Kafka exports."""

from app.local.boards.board import Board, Kind, Limit, Panel, Query, Section, Unit
from app.local.boards.queries import WINDOW


def role_page(role: str, about: str, *sections: Section, consumer: bool = True) -> Board:
    """A role's page: sections of its own, then its processes. Args: consumer: it reads a topic."""
    of_consumer = _consumer(f'{{role="{role}"}}') if consumer else ()
    processes = Section("Processes", (*_processes(f'{{job="instream", role="{role}"}}'), *of_consumer), height=6)
    return Board(f"instream-{role}", f"instream: {role}", about, (*sections, processes))


def _processes(of: str) -> tuple[Panel, ...]:
    return (
        Panel(
            "Ready",
            [Query(f"up{of} * on (instance) instream_ready{of} or up{of} == 0", "{{instance}}")],
            Unit.YES_NO,
            Kind.NUMBER,
            6,
            "Whether each process answers and is ready. Its page /ready names the reason while it waits.",
            (Limit(1, "green"),),
            "red",
        ),
        Panel("Starts in an hour", [Query(f"changes(process_start_time_seconds{of}[1h])", "{{instance}}")], width=6),
        Panel(
            "CPU",
            [Query(f"rate(process_cpu_seconds_total{of}[{WINDOW}])", "{{instance}}")],
            width=6,
            help="1 is a full core.",
        ),
        Panel("Memory", [Query(f"process_resident_memory_bytes{of}", "{{instance}}")], Unit.BYTES, width=6),
        Panel("Open files", [Query(f"process_open_fds{of}", "{{instance}}")], width=6),
        Panel("Waits for an upgrade", [Query(f"sum by (place) (instream_waits_for_upgrade{of})", "{{place}}")], width=6),
        Panel("Code", [Query(f"instream_code_info{of}")], kind=Kind.TABLE, width=12, help="Version and folder."),
    )


def _consumer(of: str) -> tuple[Panel, ...]:
    lag = f"sum by (topic, partition) (instream_lag_messages{of})"
    foreign = f"sum by (topic) (increase(instream_foreign_messages_total{of}[1h]))"
    return (
        Panel("Messages before it", [Query(lag, "{{topic}} {{partition}}")], width=12),
        Panel("Foreign messages passed over, in an hour", [Query(foreign, "{{topic}}")], width=12),
    )
