"""Realistic traffic for a stack, and its expected result.

    content.py   texts and values of visitors, pages and hostile clients
    stories.py   the events of one page view: first, second, ads, bots, noise
    schedule.py  stories laid out in time, resent lines, requests
    send.py      the HTTP client; notes when each line was really sent and acknowledged
    expect.py    the expected result of every line, from those times
    compare.py   the warehouse compared with the expected result

It shares no code with the pipeline's own decisions (`app.core`): an error there must not be an error here too.
"""
