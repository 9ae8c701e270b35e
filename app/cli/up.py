"""`instream up`, `instream down`: the local stack's life."""

from app.cli.show import JsonOption, print_json
from app.progress import ProgressLines


def up(as_json: JsonOption = False) -> None:
    """Start the whole local stack and return when every role is ready.

    Everything runs in the background; addresses are in $INSTREAM_HOME/stack.json (default .instream), which --json prints
    without write keys. A stack that is up already is left as it is.
    """
    from app.local.stack.control import end_in_order_when_told  # noqa: PLC0415 - commands load what they need
    from app.local.stack.control import up as start  # noqa: PLC0415
    from app.local.stack.stack_file import home_of_environment, without_secrets  # noqa: PLC0415
    from app.warehouse_url import redacted_url  # noqa: PLC0415

    home = home_of_environment()
    end_in_order_when_told()
    stack = start(home, ProgressLines())
    if as_json:
        print_json(without_secrets(stack))
        return
    print(f"collector  {stack.collector_url}")
    print(f"warehouse  {redacted_url(stack.warehouse_url)}")
    print(f"kafka      {stack.kafka}")
    print(f"aws        {stack.aws_endpoint}")
    print(f"details    {home.stack_file}")


def down(as_json: JsonOption = False) -> None:
    """Stop the local stack; none of its processes runs afterwards. Logs stay; the next `up` removes the data."""
    from app.local.stack.control import down as stop  # noqa: PLC0415
    from app.local.stack.stack_file import home_of_environment  # noqa: PLC0415

    stopped = stop(home_of_environment(), ProgressLines())
    if as_json:
        print_json({"stopped": stopped})
    elif not stopped:
        print("nothing was running")
