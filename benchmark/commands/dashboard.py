"""dashboard: MLflow's own server over the logged runs."""

from pathlib import Path
from typing import Annotated

import typer

from benchmark.commands.options import TrackingUri, say


def dashboard(
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; a free one if it is taken.")
    ] = 5000,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen at. All but this machine's own ask for passwords."
        ),
    ] = "127.0.0.1",
    artifacts: Annotated[
        Path | None,
        typer.Option(help="The folder of what others log to this server. Default: mlartifacts."),
    ] = None,
) -> None:
    """Serve MLflow on 127.0.0.1, or with passwords to others, and print the address."""
    from benchmark.lifetime import Family
    from benchmark.tracking import dashboard as server

    address, command = server.command(tracking_uri, port, host, artifacts)
    say(f"MLflow dashboard: {address} (Ctrl-C ends it)")
    for name, page in server.views(tracking_uri, address).items():
        say(f"{name}: {page}")
    try:
        with Family(command) as family:
            raise typer.Exit(family.wait())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
