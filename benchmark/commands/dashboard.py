"""dashboard: MLflow's own UI over the logged runs."""

from typing import Annotated

import typer

from benchmark.commands.options import TrackingUri, say


def dashboard(
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; a free one if it is taken.")
    ] = 5000,
) -> None:
    """Serve MLflow's own UI on 127.0.0.1 and print its address."""
    from benchmark.lifetime import Family
    from benchmark.tracking.tracker import dashboard as server

    address, command = server(tracking_uri, port)
    say(f"MLflow dashboard: {address} (Ctrl-C ends it)")
    try:
        with Family(command) as family:
            raise typer.Exit(family.wait())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
