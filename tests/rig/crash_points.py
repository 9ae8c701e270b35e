"""`python -m tests.rig.crash_points`: every point at which a test can end a worker, before and after each outside call.

A plan arms one, e.g. [{"id": "1", "point": "sink.s3.put.jobdata.after", "times": 1}]. Start the stack with
INSTREAM_CRASH_PLAN naming the plan file; the file may be written at any time.
"""

from app.crash.catalogue import POINTS

if __name__ == "__main__":
    print("\n".join(str(point) for point in POINTS))
