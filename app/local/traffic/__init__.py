"""Realistic traffic for a stack, and what must become of it.

    content.py   what visitors, pages and hostile clients send
    stories.py   what happens on one page view: first, second, ads, bots, noise
    schedule.py  stories laid out in time, resent lines, requests
    send.py      the HTTP client; notes when each line was really sent and acknowledged
    expect.py    what every line must become, judged by those times
    compare.py   the warehouse against that

It shares no code with the pipeline's own decisions (`app.core`): an error there must not be an error here too.
"""
